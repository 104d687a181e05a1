"""Large models: seconds and private memory of import, transform, print, parse and export.

    python benchmarks/scale.py [--nodes 2000 20000] [--gigabytes 3] [--commands 2.3]

The graphs are chains with branches that meet again; the large model has few nodes and weights of
half a gigabyte each, in external data. Each step is a process of its own. Memory is RssAnon:
mapped weights do not count. The last table is that of ``large_model.py``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from assets import ROOT
from large_model import through_commands
from markdown import print_table
from onnx import TensorProto, helper, numpy_helper
from process_cost import ProcessCost, measure

__all__ = ["chain", "main"]

_WIDTH = 8
_TENSOR = 1 << 29
_STEPS = {
    "import": "m = qdqc.import_onnx('m.onnx'); qdqc.save(m, 'a.qir')",
    "transform": "m = qdqc.load('a.qir'); m = qdqc.run(m, '@transform'); qdqc.save(m, 'b.qir')",
    "parse and print": "m = qdqc.load('b.qir'); qdqc.save(m, 'c.qir')",
    "export": "m = qdqc.load('b.qir'); qdqc.save_onnx(m, 'n.onnx')",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables; 1 when a bound is broken."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, nargs="+", default=[2000, 20000])
    parser.add_argument("--gigabytes", type=float, default=3.0, help="0 leaves it out")
    parser.add_argument("--commands", type=float, default=2.3, help="as --gigabytes")
    args = parser.parse_args(argv)
    totals: dict[int, float] = {}
    good = True
    for count in args.nodes:
        with tempfile.TemporaryDirectory() as folder:
            onnx.save(chain(count), Path(folder) / "m.onnx")
            costs = _steps(Path(folder))
        totals[count] = sum(c.seconds for c in costs.values())
        peak = max(c.peak_bytes for c in costs.values())
        good &= count > 20000 or (totals[count] < 40 and peak < 1 << 30)
        _show(f"{count} nodes: {totals[count]:.1f} s, {peak / 1e9:.2f} GB", costs)
    if len(totals) > 1:
        small, large = min(totals), max(totals)
        ratio = totals[large] / totals[small]
        print(f"\n{large / small:.0f} times the nodes take {ratio:.1f} times as long")
    if args.gigabytes:
        good &= _heavy(int(args.gigabytes * 1e9))
    if args.commands:
        good &= through_commands(int(args.commands * 1e9))
    return 0 if good else 1


def chain(count: int) -> onnx.ModelProto:
    """A graph of about so many nodes: Conv, Relu, two branches that an Add joins, and so on."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.normal(0, 0.3, (_WIDTH, _WIDTH, 1, 1)).astype("f4"), f"w{i}")
        for i in range(16)
    ]
    nodes: list[onnx.NodeProto] = []
    held = "x"
    for i in range(count // 5):
        a, b, c, d, e = (f"{k}{i}" for k in "abcde")
        nodes += [
            helper.make_node("Conv", [held, f"w{i % 16}"], [a], f"/{i}/Conv"),
            helper.make_node("Relu", [a], [b], f"/{i}/Relu"),
            helper.make_node("Sigmoid", [b], [c], f"/{i}/Sigmoid"),
            helper.make_node("Tanh", [b], [d], f"/{i}/Tanh"),
            helper.make_node("Add", [c, d], [e], f"/{i}/Add"),
        ]
        held = e
    return _model(nodes, held, [1, _WIDTH, 4, 4], weights)


def _model(
    nodes: list[onnx.NodeProto], out: str, shape: list[int], weights: list[TensorProto]
) -> onnx.ModelProto:
    first, last = (helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ("x", out))
    graph = helper.make_graph(nodes, "scale", [first], [last], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def _steps(folder: Path) -> dict[str, ProcessCost]:
    """Each step as a process of its own, in order."""
    found: dict[str, ProcessCost] = {}
    for name, code in _STEPS.items():
        line = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import qdqc; {code}"
        found[name] = measure([sys.executable, "-c", line], cwd=folder)
    return found


def _show(title: str, costs: dict[str, ProcessCost]) -> None:
    rows = [[n, f"{c.seconds:.1f}", f"{c.peak_bytes / 1e6:.0f}"] for n, c in costs.items()]
    print_table(title, ["step", "s", "MB"], rows)


def _heavy(size: int) -> bool:
    """A model of so many bytes; its bound is 1.3 times the largest tensor and 300 MB."""
    limit = 1.3 * _TENSOR + 300e6
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_heavy(folder, max(1, size // _TENSOR))
        costs = _steps(folder)
        same = (folder / "n.onnx.data").stat().st_size >= size - _TENSOR
    peak = max(c.peak_bytes for c in costs.values())
    title = f"{size / 1e9:.1f} GB of weights: {peak / 1e6:.0f} MB of at most {limit / 1e6:.0f}"
    _show(title, costs)
    return same and peak <= limit


def _write_heavy(folder: Path, count: int) -> None:
    """MatMuls in a row, each with a weight of half a gigabyte that is written in pieces."""
    side = int((_TENSOR / 4) ** 0.5)
    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: list[TensorProto] = []
    with (folder / "m.data").open("wb") as out:
        for i in range(count):
            offset = out.tell()
            for _ in range(side):
                out.write(rng.integers(0, 255, side * 4, dtype=np.uint8).tobytes())
            tensor = TensorProto(name=f"w{i}", data_type=TensorProto.FLOAT, dims=[side, side])
            tensor.data_location = TensorProto.EXTERNAL
            entries = {"location": "m.data", "offset": offset, "length": out.tell() - offset}
            for key, value in entries.items():
                tensor.external_data.add(key=key, value=str(value))
            weights.append(tensor)
            nodes.append(
                helper.make_node("MatMul", [f"v{i}" if i else "x", f"w{i}"], [f"v{i + 1}"])
            )
    onnx.save(_model(nodes, f"v{count}", [1, side], weights), folder / "m.onnx")


if __name__ == "__main__":
    raise SystemExit(main())
