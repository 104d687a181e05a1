"""INT8 of any ONNX models on random inputs, beside onnxruntime's quantize_static.

    python benchmarks/any_model.py [--samples 8] [--rounds 50] MODEL.onnx ...

Both are calibrated on the same normal inputs (integers from 0 to 49, symbols as 2), the peer by
MinMax, QDQ, u8 activations, s8 weights per channel, after its quant_pre_process; all else at its
default. The cosine is that of the output that differs most from float, on those inputs: it shows
faults of layout, and no accuracy on data. Latency: one thread, the models interleaved.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fidelity import cosine
from markdown import print_table
from ort_quantizer import prepared, quantized, session

from qdqc.diagnostics import QdqcError
from qdqc.runtime.timing.latency import ratio, time_models

__all__ = ["main"]

_IDS = 50
FLOAT, OWN, PEER = "float", "qdqc", "onnxruntime static"


def main(argv: Sequence[str] | None = None) -> int:
    """Quantize every model with both and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL.onnx")
    parser.add_argument("--samples", type=int, default=8, help="inputs (default: 8)")
    parser.add_argument("--rounds", type=int, default=50, help="rounds of timing (default: 50)")
    args = parser.parse_args(argv)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    rows = [_row(path, args.samples, args.rounds) for path in args.models]
    head = ["model", "integer products", "cosine", f"cosine, {PEER}", "speed-up over float"]
    print_table("INT8 of any model", [*head, f"speed-up, {PEER}", f"latency over {PEER}"], rows)
    return 0


def _row(path: Path, count: int, rounds: int) -> list[object]:
    import qdqc

    data = _data(path, count)
    try:
        made = qdqc.quantize(path, data)
    except QdqcError as error:
        return [path.stem, str(error).partition("\n")[0], *[""] * 5]
    audit = made.report.entries()["audit"]
    models: dict[str, Any] = {FLOAT: str(path), OWN: made.model}
    with tempfile.TemporaryDirectory() as folder:
        peer = _peer(path, Path(folder), data)
        models |= {PEER: peer} if peer is not None else {}
        times = time_models(models, dict.fromkeys(models, data[0]), rounds=rounds)
        exact = session(path).run(None, data[0])
        near = {n: f"{_nearness(m, data[0], exact):.4f}" for n, m in models.items() if n != FLOAT}
    products = f"{audit['integer']} of {audit['integer'] + audit['float']}"
    row: list[object] = [path.stem, products, near[OWN], near.get(PEER, "fails")]
    row.append(ratio(times[FLOAT], times[OWN]).text())
    if PEER not in times:
        return [*row, "", ""]
    over = ratio(times[OWN], times[PEER]).text()
    return [*row, ratio(times[FLOAT], times[PEER]).text(), over]


def _data(path: Path, count: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    inputs = session(path).get_inputs()

    def array(kind: str, shape: list[Any]) -> Any:
        sizes = [d if isinstance(d, int) else 2 for d in shape]
        if "float" in kind:
            return rng.normal(size=sizes).astype(np.float32)
        return rng.integers(0, 2 if "bool" in kind else _IDS, sizes).astype(
            bool if "bool" in kind else np.int64
        )

    return [{i.name: array(i.type, i.shape) for i in inputs} for _ in range(count)]


def _peer(path: Path, folder: Path, data: list[dict[str, Any]]) -> str | None:
    """The peer's model; None where it fails."""
    try:
        ready = prepared(path, folder / "prepared.onnx")
        return str(quantized(ready, folder / "peer.onnx", iter(data)))
    except Exception:
        return None


def _nearness(model: Any, feeds: dict[str, Any], exact: Sequence[Any]) -> float:
    found = session(Path(model) if isinstance(model, str) else model).run(None, feeds)
    pairs = zip(found, exact, strict=True)
    return min(float(cosine(a.reshape(1, -1), b.reshape(1, -1))[0]) for a, b in pairs)


if __name__ == "__main__":
    raise SystemExit(main())
