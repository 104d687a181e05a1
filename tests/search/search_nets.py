"""Small networks with calibrated ranges, and a search done straight beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qdqc.calibration.table import Table, save_table
from qdqc.ir.core import Value
from qdqc.ir.data import Data
from qdqc.ir.graph import Module
from qdqc.ir.op import Op
from qdqc.ir.types import Elem, Range, TensorType
from qdqc.ops import (
    Add,
    Conv,
    Flatten,
    Gemm,
    GlobalAveragePool,
    MatMul,
    Relu,
    Sigmoid,
    Softmax,
    Tanh,
)
from qdqc.pipeline.manager import run
from qdqc.runtime.sessions.session import Runner

Sample = dict[str, npt.NDArray[Any]]


class Net:
    """Builds a module; weights are drawn as they are needed."""

    def __init__(self, *shape: Any, seed: int = 0) -> None:
        self.module = Module("net", {"": 17})
        self.rng = np.random.default_rng(seed)
        self.x = self.module.graph.add_input("x", TensorType(Elem.F32, shape))

    def op(self, name: str, op: Op, *operands: Value | None) -> Value:
        return self.module.graph.insert(op, list(operands), None, [name]).result

    def const(self, name: str, *shape: int, scale: float = 0.4) -> Value:
        array = self.rng.normal(0, scale, shape).astype(np.float32)
        return self.module.add_constant(name, Data.of(array))

    def conv(self, name: str, x: Value, out: int, size: int = 3, **op: Any) -> Value:
        shape = x.tensor.shape
        assert shape is not None
        channels = shape[1]
        assert isinstance(channels, int)
        weight = self.const(f"{name}.w", out, channels // op.get("group", 1), size, size)
        bias = self.const(f"{name}.b", out)
        pads = (size // 2,) * 4
        return self.op(name, Conv(pads=pads, **op), x, weight, bias)

    def gemm(self, name: str, x: Value, inner: int, out: int) -> Value:
        return self.op(
            name, Gemm(), x, self.const(f"{name}.w", inner, out), self.const(f"{name}.b", out)
        )

    def matmul(self, name: str, x: Value, inner: int, out: int) -> Value:
        return self.op(name, MatMul(), x, self.const(f"{name}.w", inner, out), None)

    def returns(self, *values: Value) -> Module:
        self.module.graph.set_outputs(list(values))
        return self.module


def residual(batch: Any = 1) -> Module:
    """x -> a -> b -> c, c + a -> d -> pool -> flatten -> gemm."""
    net = Net(batch, 4, 8, 8)
    a = net.conv("a", net.x, 8, clamp=(0.0, 6.0))
    b = net.conv("b", a, 8, 1, clamp=(0.0, float("inf")))
    c = net.conv("c", b, 8)
    s = net.op("s", Add(), c, a)
    d = net.conv("d", s, 8)
    pool = net.op("p", GlobalAveragePool(), d)
    return net.returns(net.gemm("y", net.op("f", Flatten(), pool), 8, 5))


def branches() -> Module:
    """Two float branches beside integer ones, two outputs, a sigmoid gate."""
    net = Net(1, 4, 8, 8, seed=3)
    a = net.conv("a", net.x, 8)
    gate = net.op("g", Sigmoid(), net.conv("b", a, 8, 1))
    c = net.conv("c", net.op("m", Add(), a, gate), 8)
    d = net.conv("d", net.op("r", Relu(), c), 8, 1)
    soft = net.op("soft", Softmax(axis=1), d)
    return net.returns(net.conv("y", soft, 4, 1), d)


def attention(batch: Any = "N") -> Module:
    """A feed-forward block: products with float results, read by float and integer nodes."""
    from qdqc.ir.dims import symbol

    net = Net(symbol(batch) if isinstance(batch, str) else batch, 6, 16, seed=5)
    q = net.matmul("q", net.x, 16, 16)
    soft = net.op("soft", Softmax(axis=-1), q)
    s = net.op("s", Add(), soft, net.x)
    up = net.op("up", Tanh(), net.matmul("u", s, 16, 32))
    down = net.matmul("w", up, 32, 16)
    return net.returns(net.op("y", Add(), down, s))


NETS = {"residual": residual, "branches": branches, "attention": attention}


def samples_of(module: Module, count: int = 4, seed: int = 7) -> list[Sample]:
    rng = np.random.default_rng(seed)
    shape = [d if isinstance(d, int) else 1 for d in module.graph.inputs[0].tensor.shape or ()]
    return [{"x": rng.normal(0, 1, shape).astype(np.float32)} for _ in range(count)]


def table_of(module: Module, samples: list[Sample], share: float = 1.0) -> Table:
    """Extremes of all float values over the samples, times a share."""
    values = [*module.graph.inputs, *(r for n in module.graph.nodes() for r in n.present_results)]
    names = [v.name for v in values]
    runner = Runner(module, names, optimise="off", threads=1)
    seen: Mapping[str, list[Any]] = {n: [] for n in names}
    means: dict[str, list[Any]] = {}
    for sample in samples:
        for name, array in runner.run(sample).items():
            seen[name].append((float(array.min()), float(array.max())))
            if array.ndim in (2, 4):
                axes = tuple(i for i in range(array.ndim) if i != 1)
                means.setdefault(name, []).append(array.mean(axis=axes))
    rows: dict[str, Range] = {}
    for name, ends in seen.items():
        low, high = min(e[0] for e in ends), max(e[1] for e in ends)
        rows[name] = Range(share * low, share * high, share * max(-low, high, 1e-5))
    channels = {n: tuple(np.mean(m, axis=0).tolist()) for n, m in means.items()}
    return Table(rows=rows, channel_means=channels, header={"method": f"share {share:g}"})


def straight_outputs(
    module: Module,
    table: Table,
    samples: list[Sample],
    integer: list[str],
    folder: Path,
    *,
    symmetric: bool = False,
) -> list[dict[str, Any]]:
    """The outputs when these nodes alone are INT8: the pipeline of files, the whole model."""
    save_table(table, folder / "t")
    lines = [f"{n.name} F32" for n in module.graph.nodes() if n.name not in integer]
    (folder / "q").write_text("\n".join(lines) + "\n")
    scheme = "true" if symmetric else "false"
    lowered = run(
        module,
        f'import-calibration{{table="{folder}/t"}},propagate-ranges,'
        f'assign-precision{{qtable="{folder}/q"}},correct-bias{{table="{folder}/t"}},'
        f"quantize{{symmetric={scheme}}},lower-to-qdq",
    )
    runner = Runner(lowered, threads=1)
    return [runner.run(sample) for sample in samples]
