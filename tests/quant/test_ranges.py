"""propagate-ranges: nothing that a model hands on is cut off, and integers only get finer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qdqc.ir.clone import clone
from qdqc.ir.graph import Module
from qdqc.ir.types import Range
from qdqc.ops import (
    Abs,
    Add,
    Clip,
    Concat,
    Conv,
    GlobalAveragePool,
    MaxPool,
    Mul,
    Relu,
    Sigmoid,
    Slice,
    Transpose,
)
from qdqc.pipeline.manager import run
from qdqc.runtime.sessions.session import Runner

SAMPLES = 4


def clipped(module: Module) -> Module:
    """The module with every value of the graph cut to its range, as integers would."""
    out = clone(module)
    for node in list(out.graph.nodes()):
        value = node.result
        held = value.tensor.range
        if held is None or value.is_output:
            continue
        bounds = Clip(min=float(np.float32(held.min)), max=float(np.float32(held.max)))
        cut = out.graph.insert(bounds, [value], before=node.next)
        value.replace_uses(cut.result, keep=[cut])
    return out


def branches(made: Any) -> None:
    """Movers, selectors and bounds behind sums, each read once or twice."""
    x = made.input("x", 1, 4, 6, 6)
    a = made.op("a", Add(), x, made.weight("c1", 1, 4, 1, 1))
    p = made.op("p", MaxPool(kernel_shape=(3, 3), strides=(3, 3)), a)
    b = made.op("b", Mul(), x, made.weight("c2", 1, 4, 1, 1))
    r = made.op("r", Relu(), b)
    s = made.op("s", MaxPool(kernel_shape=(3, 3), strides=(3, 3)), r)
    g = made.op("g", Sigmoid(), made.op("m", GlobalAveragePool(), x))
    j = made.op("j", Concat(axis=1), p, s)
    t = made.op("t", Transpose(perm=(0, 2, 3, 1)), made.op("h", Abs(), j))
    made.returns(t, made.op("o", Mul(), s, g))


def sliced(made: Any) -> None:
    """A slice, and a clip of a convolution that nobody else reads."""
    x = made.input("x", 1, 4, 6, 6)
    a = made.op("a", Conv(), x, made.weight("w", 8, 4, 1, 1))
    bounds = [made.const(n, np.array([v])) for n, v in (("s0", 1), ("s1", 3), ("s2", 1))]
    part = made.op("part", Slice(), a, *bounds)
    b = made.op("b", Conv(), part, made.weight("w2", 4, 2, 3, 3))
    made.returns(made.op("y", Clip(min=-0.5, max=0.25), b))


@pytest.mark.parametrize("build", [branches, sliced])
def test_what_is_cut_off_does_not_matter(net: Any, calibrated: Any, build: Any) -> None:
    made = net()
    build(made)
    before = calibrated(made)
    after = run(before, "propagate-ranges")
    names = [n.name for n in before.graph.nodes()]
    assert any(_range(before, n) != _range(after, n) for n in names)
    whole, cut = Runner(before, optimise="off"), Runner(clipped(after), optimise="off")
    for seed in range(SAMPLES):
        feeds = made.feeds(seed)
        expected, found = whole.run(feeds), cut.run(feeds)
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-6)


def test_the_range_behind_a_slice_is_that_of_the_slice(net: Any, calibrated: Any) -> None:
    made = net()
    sliced(made)
    module = run(calibrated(made), "propagate-ranges")
    assert _range(module, "a") == _range(module, "part")
    assert _range(module, "b") == (-0.5, 0.25)


def _range(module: Module, name: str) -> tuple[float, float] | None:
    value = module.value(name)
    assert value is not None
    held = value.tensor.range
    return None if held is None else (held.min, held.max)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(2.0, 3.0, (0.0, 2.0)), (-3.0, -2.0, (-2.0, 0.0)), (0.5, 9.0, (0.0, 1.0))],
)
def test_bounds_beyond_the_range_of_the_operand(
    net: Any, low: float, high: float, expected: tuple[float, float]
) -> None:
    """clip(x, 2, 3) of x in [0, 1] is 2 everywhere: a range up to 1 would cut it off."""
    made = net()
    made.returns(made.op("c", Clip(min=low, max=high), made.input("x", 1, 4)))
    x = made.module.graph.inputs[0]
    x.type = x.tensor.with_range(Range(0.0, 1.0, 1.0))
    value = run(made.module, "propagate-ranges").value("c")
    assert value is not None
    assert value.range is not None
    assert (value.range.min, value.range.max) == expected
