"""Nodes left after the float passes, beside onnxslim and onnxruntime's basic level.

    QDQC_ASSETS=... python benchmarks/simplify.py [effnet minilm minilm-64 digits]

Constants are not counted. Each result is held against the original model, optimisations off:
the largest of max|a-b| / max|b| over the outputs for 8 random inputs must be 1e-4 or less.
onnxslim takes part where it is installed (pip install onnxslim).
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from assets import DIGITS, assets_folder
from markdown import print_table
from ort_quantizer import Sample, fixed_model, node_counts, optimised, session
from qdqc_commands import transform

__all__ = ["difference", "main", "random_inputs"]

INPUTS = 8
TOLERANCE = 1e-4
_SIZES = {"batch": 2, "seq": 16, "N": 2}
"""What stands for the symbols of the models' inputs."""
_VOCABULARY = 30522


@dataclass(frozen=True)
class Network:
    """A model to simplify; the symbols of ``fixed`` get their sizes first."""

    path: Path
    fixed: dict[str, int] = field(default_factory=dict)


@dataclass
class Result:
    """What a tool leaves of a model."""

    tool: str
    nodes: int | str
    model: onnx.ModelProto
    ir: Counter[str] = field(default_factory=Counter)


def main(argv: Sequence[str] | None = None) -> int:
    """Simplify each model with each tool; 1 when outputs differ."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ("effnet", "minilm", "minilm-64", "digits")
    parser.add_argument("models", nargs="*", help=f"of {', '.join(names)} (default: all)")
    parser.add_argument("--peers-only", action="store_true", help="leave the project's own out")
    args = parser.parse_args(argv)
    if unknown := set(args.models) - set(names):
        parser.error(f"unknown model {', '.join(sorted(unknown))}")
    agree = True
    for name in args.models or names:
        network = _network(name)
        if network is not None:
            with tempfile.TemporaryDirectory() as folder:
                agree &= _compare(name, network, Path(folder), args.peers_only)
    return 0 if agree else 1


def _network(name: str) -> Network | None:
    if name == "digits":
        return Network(DIGITS / "digits.onnx")
    file = "models/effnet_lite0.onnx" if name == "effnet" else "models/minilm.onnx"
    assets = assets_folder(file)
    if assets is None:
        return None
    fixed = {"effnet": {"batch": 1}, "minilm-64": {"batch": 1, "seq": 64}}
    return Network(assets / file, fixed.get(name, {}))


def _compare(name: str, network: Network, folder: Path, peers_only: bool) -> bool:
    model = folder / f"{name}.onnx"
    onnx.save(onnx.load(str(network.path)), str(model))
    for symbol, size in network.fixed.items():
        fixed_model(model, model, symbol, size)
    original = onnx.load(str(model))
    results = [] if peers_only else [_own(model, folder)]
    results += [_by_onnxruntime(model, folder), *_by_onnxslim(original)]
    differences = {r.tool: difference(r.model, original) for r in results}
    before = node_counts(original).total()
    rows: list[list[object]] = [["before", "", before, ""]]
    for result in results:
        exported = node_counts(result.model).total()
        rows.append([result.tool, result.nodes, exported, f"{differences[result.tool]:.1e}"])
    fixed = "".join(f", {symbol} {size}" for symbol, size in network.fixed.items())
    head = ["tool", "IR nodes", "ONNX nodes", "max|a-b| / max|b|"]
    print_table(f"Simplification of {name}{fixed}", head, rows)
    for result in results:
        if result.ir:
            print("\nIR:", ", ".join(f"{op} {n}" for op, n in result.ir.most_common()))
    return all(d <= TOLERANCE for d in differences.values())


def _own(model: Path, folder: Path) -> Result:
    import qdqc

    module = qdqc.load(transform(model, folder))
    ir = Counter(node.op.name for node in module.walk())
    return Result("qdqc model_transform", ir.total(), qdqc.export_onnx(module), ir)


def _by_onnxruntime(model: Path, folder: Path) -> Result:
    return Result("onnxruntime basic", "", optimised(model, folder / "basic.onnx", "basic"))


def _by_onnxslim(original: onnx.ModelProto) -> list[Result]:
    if importlib.util.find_spec("onnxslim") is None:
        print("onnxslim is left out: it is not installed")
        return []
    import onnxslim

    copy = onnx.ModelProto()
    copy.CopyFrom(original)
    return [Result(f"onnxslim {onnxslim.__version__}", "", onnxslim.slim(copy))]


def difference(model: onnx.ModelProto, original: onnx.ModelProto) -> float:
    """The largest max|a-b| / max|b| over the outputs for random inputs, optimisations off."""
    found, exact = session(model, level="off"), session(original, level="off")
    outputs = [o.name for o in exact.get_outputs()]
    worst = 0.0
    for seed in range(INPUTS):
        feeds = random_inputs(original, seed)
        for a, b in zip(found.run(outputs, feeds), exact.run(outputs, feeds), strict=True):
            worst = max(worst, float(np.abs(a - b).max() / np.abs(b).max()))
    return worst


def random_inputs(model: onnx.ModelProto, seed: int) -> Sample:
    """Normal floats; for integers tokens, segments, and a mask that covers at least one token."""
    rng = np.random.default_rng(seed)
    held = {i.name for i in model.graph.initializer}
    feeds: dict[str, np.ndarray] = {}
    for value in (v for v in model.graph.input if v.name not in held):
        dims = value.type.tensor_type.shape.dim
        shape = [d.dim_value or _SIZES[d.dim_param] for d in dims]
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
            feeds[value.name] = rng.standard_normal(shape, dtype=np.float32)
        elif "mask" in value.name:
            lengths = rng.integers(1, shape[1] + 1, (shape[0], 1))
            feeds[value.name] = (np.arange(shape[1]) < lengths).astype(np.int64)
        else:
            top = 2 if "type" in value.name else _VOCABULARY
            feeds[value.name] = rng.integers(0, top, shape, dtype=np.int64)
    return feeds


if __name__ == "__main__":
    raise SystemExit(main())
