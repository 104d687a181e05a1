"""Public architectures by both of PyTorch's exporters: nodes before and after, outputs equal.

    python benchmarks/architectures.py [resnet vit ...] [--dynamic]

Weights are random. Beside the project stand onnxslim and onnxsim where they are installed; the
nodes of all three are counted in the ONNX that they write, constants left out. Outputs are held
against the original model on random inputs, optimisations off. Needs torch, transformers and
onnxscript; says so where they are missing.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from markdown import print_table
from ort_quantizer import node_counts, session
from qdqc_commands import CommandError, transform

__all__ = ["main"]

TOLERANCE = 1e-4
_NEEDED = ("torch", "transformers", "onnxscript")


@dataclass(frozen=True)
class Row:
    """What came of one network by one exporter; a number or the reason for none."""

    name: str
    exporter: str
    before: int
    ir: int | str
    after: int | str
    peers: dict[str, int | str]
    difference: float
    seconds: float

    def cells(self) -> list[object]:
        peers = list(self.peers.values())
        found = f"{self.difference:.0e}"
        head = [self.name, self.exporter, self.before, self.ir, self.after]
        return [*head, *peers, found, f"{self.seconds:.1f}"]


def main(argv: Sequence[str] | None = None) -> int:
    """Export, transform and compare each network; 1 when one fails or its outputs differ."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", help="names of networks (default: all)")
    parser.add_argument("--dynamic", action="store_true", help="export with symbolic dimensions")
    args = parser.parse_args(argv)
    missing = [n for n in _NEEDED if importlib.util.find_spec(n) is None]
    if missing:
        print(f"skipped architectures: {', '.join(missing)} not installed")
        return 0
    from public_networks import NETWORKS

    if unknown := set(args.networks) - set(NETWORKS):
        parser.error(
            f"unknown network {', '.join(sorted(unknown))}; there are {', '.join(NETWORKS)}"
        )
    rows: list[Row] = []
    for name in args.networks or NETWORKS:
        for dynamo in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                rows += _measure(name, Path(folder), dynamo, args.dynamic)
    peers = list(rows[0].peers) if rows else []
    head = ["network", "exporter", "before", "IR", "qdqc", *peers, "max|a-b|/max|b|", "s"]
    sizes = "symbolic" if args.dynamic else "fixed"
    print_table(f"Nodes of public architectures, {sizes} sizes", head, [r.cells() for r in rows])
    good = [r for r in rows if isinstance(r.after, int) and r.difference <= TOLERANCE]
    print(f"\n{len(good)} of {len(rows)} come in, go through and come out equal")
    return 0 if len(good) == len(rows) else 1


def _measure(name: str, folder: Path, dynamo: bool, dynamic: bool) -> list[Row]:
    import torch
    from public_networks import NETWORKS, export

    torch.manual_seed(0)
    model = folder / f"{name}.onnx"
    exporter = "dynamo" if dynamo else "torchscript"
    made = NETWORKS[name]()
    try:
        with _quiet():
            export(made, model, dynamo=dynamo, dynamic=dynamic)
    except Exception as error:
        print(f"left out: {name} is not exported by {exporter}: {str(error).splitlines()[0][:150]}")
        return []
    original = onnx.load(str(model))
    peers = {n: _count(slim, model) for n, slim in _peers().items()}
    start = time.perf_counter()
    ir, exported = _own(model, folder)
    seconds = time.perf_counter() - start
    gap = np.inf if isinstance(exported, str) else _difference(exported, original, made.inputs)
    after = exported if isinstance(exported, str) else node_counts(exported).total()
    before = node_counts(original).total()
    return [Row(name, exporter, before, ir, after, peers, gap, seconds)]


def _own(model: Path, folder: Path) -> tuple[int | str, onnx.ModelProto | str]:
    import qdqc

    try:
        module = qdqc.load(transform(model, folder))
        return sum(1 for _ in module.walk()), qdqc.export_onnx(module)
    except (CommandError, qdqc.QdqcError) as error:
        print(f"{model.stem}: {error}")
        return "refused", "refused"


def _peers() -> dict[str, Callable[[Path], onnx.ModelProto]]:
    found: dict[str, Callable[[Path], onnx.ModelProto]] = {}
    if importlib.util.find_spec("onnxslim") is not None:
        found["onnxslim"] = _by_onnxslim
    if importlib.util.find_spec("onnxsim") is not None:
        found["onnxsim"] = _by_onnxsim
    return found


def _by_onnxslim(model: Path) -> onnx.ModelProto:
    import onnxslim

    return onnxslim.slim(onnx.load(str(model)))


def _by_onnxsim(model: Path) -> onnx.ModelProto:
    import onnxsim

    return onnxsim.simplify(onnx.load(str(model)))[0]


def _count(slim: Callable[[Path], onnx.ModelProto], model: Path) -> int | str:
    """Nodes that a peer leaves, or that it fails: a peer's failure is no reason to stop."""
    try:
        with _quiet():
            return node_counts(slim(model)).total()
    except Exception as error:
        return type(error).__name__


def _difference(found: onnx.ModelProto, original: onnx.ModelProto, inputs: Any) -> float:
    """The largest max|a-b| / max|b| over the outputs for random inputs, optimisations off."""
    mine, exact = session(found, level="off"), session(original, level="off")
    outputs = [o.name for o in exact.get_outputs()]
    rng = np.random.default_rng(1)
    worst = 0.0
    for _ in range(4):
        feeds: dict[str, Any] = {}
        for name, example in inputs.items():
            array = example.numpy()
            whole = array.dtype.kind == "i"
            drawn = rng.integers(0, 100, array.shape) if whole else rng.normal(size=array.shape)
            feeds[name] = drawn.astype(array.dtype)
        for a, b in zip(mine.run(outputs, feeds), exact.run(outputs, feeds), strict=True):
            worst = max(worst, float(np.abs(a - b).max() / np.abs(b).max()))
    return worst


@contextlib.contextmanager
def _quiet() -> Any:
    """Exporters and peers talk; what they say belongs to no table."""
    logging.disable(logging.WARNING)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


if __name__ == "__main__":
    raise SystemExit(main())
