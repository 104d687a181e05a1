"""What model_deploy makes of EfficientNet-Lite0 and MiniLM, in every mode, beside onnxruntime.

    QDQC_ASSETS=... python benchmarks/deploy.py [--rounds 200] [--skip-accuracy]

First ``effnet.py`` and ``minilm.py`` (dynamic shapes, and fixed to [1,64]): accuracy, kernels and
latency of static INT8 beside onnxruntime's own static and dynamic models. Then the modes of
MiniLM in one table: cosine of embeddings to float, bytes of the file and of the MatMuls' weights
to those of float, integer products and MatMulNBits kernels that onnxruntime makes, and latency
over its dynamic model. Last what must hold of every deployed model: it passes onnx's checker with
the full shape check, and runs with onnxruntime's optimisations off and on, stretch by stretch
alike (``bad fusions``).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import effnet
import minilm
import numpy as np
import onnx
from assets import assets_folder
from fidelity import cosine
from markdown import print_table
from ort_quantizer import fixed_model, node_counts, optimised, prepared, session
from photos import PREPROCESS_OPTIONS, centre, photo_files
from qdqc_commands import CommandError, calibrate, run, transform
from sentences import Pairs, batch, embedding

from qdqc.runtime.audit.fusions import bad_fusions
from qdqc.runtime.timing.latency import interleave, ratio

__all__ = ["main"]

MODES = ("INT8", "DYN8", "W8", "W4", "F16")
TARGETS = ("ort-cpu", "ort-cpu-avx2", "openvino")
TOKENS = 32


@dataclass(frozen=True)
class _Model:
    """A deployed file with the report of its deployment."""

    name: str
    path: Path
    report: dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Deploy, then print the tables; 1 where a model fails what must hold of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=200, help="rounds of timing (default: 200)")
    parser.add_argument(
        "--skip-accuracy", action="store_true", help="leave effnet.py and minilm.py out"
    )
    args = parser.parse_args(argv)
    assets = assets_folder("models/effnet_lite0.onnx")
    if assets is None or assets_folder("sts/headlines_val.npz") is None:
        return 0
    rounds = f"--rounds={args.rounds}"
    if not args.skip_accuracy:
        effnet.main([rounds])
        minilm.main([rounds])
        minilm.main([rounds, "--shape=64"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sentences, pairs = _minilm(assets, folder), Pairs.load(assets / minilm._PAIRS, 0)
        _modes(assets, folder, sentences, pairs, args.rounds)
        feeds = batch(pairs, [0], TOKENS)
        photo = {"input": centre(photo_files(assets / "imagenet_dev" / "val")[0])}
        held = [(m, feeds) for m in sentences] + [(m, photo) for m in _effnet(assets, folder)]
        return 0 if _checks(held) else 1


def _deployed(qir: Path, table: Path, name: str, *options: object) -> _Model:
    out = qir.with_name(f"{name.replace(' ', '_')}.onnx")
    given = ("--mlir", qir, "--calibration_table", table, "--model", out)
    return _Model(name, out, run("model_deploy", out.with_suffix(".json"), *given, *options))


def _minilm(assets: Path, folder: Path) -> list[_Model]:
    qir = transform(assets / "models" / "minilm.onnx", folder)
    table = calibrate(qir, assets / "sts" / "calib")
    return [_deployed(qir, table, f"MiniLM {m}", "--quantize", m) for m in MODES]


def _effnet(assets: Path, folder: Path) -> list[_Model]:
    net = fixed_model(assets / "models" / "effnet_lite0.onnx", folder / "net.onnx", "batch", 1)
    qir = transform(net, folder, *PREPROCESS_OPTIONS)
    table = calibrate(qir, assets / "imagenet_dev" / "calib")
    return [_deployed(qir, table, f"Lite0 {t}", "--target", t) for t in TARGETS]


def _modes(assets: Path, folder: Path, models: list[_Model], pairs: Pairs, rounds: int) -> None:
    """The modes of MiniLM in one table."""
    net = assets / "models" / "minilm.onnx"
    peer = folder / "dynamic.onnx"
    _dynamic(prepared(net, folder / "prepared.onnx"), peer)
    exact = _embeddings(net, pairs)
    feeds = batch(pairs, [0], TOKENS)
    paths = {m.name: m.path for m in models} | {minilm.DYNAMIC: peer}
    calls = {n: partial(session(p, threads=1).run, None, feeds) for n, p in paths.items()}
    times = interleave(calls, rounds, warmup=10)
    whole, weights = net.stat().st_size, _matmul_bytes(net)
    reports = {m.name: m.report for m in models}
    rows: list[list[object]] = []
    for name, path in paths.items():
        found = _embeddings(path, pairs)
        kernels = node_counts(optimised(path, folder / "optimised.onnx", "extended"))
        audit = reports[name]["audit"] if name in reports else None
        rows.append(
            [
                name,
                f"{cosine(found, exact).mean():.5f}",
                f"{path.stat().st_size / whole:.4f}",
                f"{_matmul_bytes(path) / weights:.4f}",
                "" if audit is None else f"{audit['integer']} of {sum_products(audit)}",
                kernels["MatMulNBits"],
                ratio(times[name], times[minilm.DYNAMIC]).text(digits=3),
            ]
        )
    head = ["model", "cosine", "bytes", "MatMul weights", "integer products", "MatMulNBits"]
    title = f"Modes of MiniLM, {len(pairs.score)} pairs; latency at {TOKENS} tokens, one thread"
    print_table(title, [*head, f"latency over {minilm.DYNAMIC}"], rows)


def sum_products(audit: dict[str, Any]) -> int:
    """Products of an audit, integer and float."""
    return audit["integer"] + audit["float"]


def _dynamic(ready: Path, out: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(ready, out, per_channel=True, weight_type=QuantType.QInt8)


def _embeddings(model: Path, pairs: Pairs) -> Any:
    net = session(model)
    rows: list[Any] = []
    for row in range(len(pairs.ids)):
        feeds = batch(pairs, [row], 0)
        rows.append(embedding(net.run(None, feeds)[0], feeds["attention_mask"]))
    return np.concatenate(rows)


def _matmul_bytes(model: Path) -> int:
    """Bytes of the weights that products read, with their scales and zero points."""
    graph = onnx.load(str(model)).graph
    makers = {o: n for n in graph.node for o in n.output}
    tensors = {t.name: t for t in graph.initializer}
    found: set[str] = set()
    for node in graph.node:
        if node.op_type in ("MatMul", "Gemm", "MatMulInteger"):
            weight = node.input[1]
            maker = makers.get(weight)
            found.update(maker.input if maker is not None else [weight])
    held = [tensors[n] for n in found if n in tensors]
    return sum(len(t.raw_data) for t in held if np.prod(t.dims) > 1)


def _checks(models: list[tuple[_Model, Any]]) -> bool:
    """What must hold of every deployed model; whether it does."""
    rows: list[list[object]] = []
    good = True
    for model, feeds in models:
        onnx.checker.check_model(str(model.path), full_check=True)
        results = [session(model.path, level=v).run(None, feeds)[0] for v in ("off", "all")]
        bad = bad_fusions(model.path, feeds)
        good &= not bad
        rows.append([model.name, "yes", f"{cosine(*results).mean():.5f}", len(bad)])
    head = ["model", "checked", "cosine of off to on", "bad fusions"]
    print_table("Every deployed model", head, rows)
    return good


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except CommandError as error:
        raise SystemExit(str(error)) from error
