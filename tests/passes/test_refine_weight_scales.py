"""Weights clipped to the reach that errs least, judged by straight numpy on the columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from qdqc.diagnostics import QdqcError
from qdqc.ir.core import Constant
from qdqc.ir.data import Data
from qdqc.ir.graph import Module
from qdqc.ir.op import Op
from qdqc.ir.types import Elem, TensorType
from qdqc.ops import Conv, Gemm, MatMul
from qdqc.passes.refine_weight_scales import RefineWeightScales
from qdqc.pipeline.manager import run
from qdqc.pipeline.pass_ import PassContext
from qdqc.runtime.sessions.session import Runner
from qdqc.text.printer import print_module

Floats = npt.NDArray[Any]
Samples = list[dict[str, Any]]
CASES: dict[str, tuple[Op, tuple[int, ...], tuple[int, ...], bool]] = {
    "conv": (Conv(), (2, 24, 5, 5), (6, 24, 1, 1), True),
    "conv without bias": (Conv(), (2, 24, 5, 5), (6, 24, 1, 1), False),
    "depthwise": (Conv(group=6, pads=(1, 1, 1, 1)), (2, 6, 9, 9), (6, 1, 3, 3), True),
    "gemm": (Gemm(trans_b=True), (40, 24), (6, 24), True),
    "matmul": (MatMul(), (40, 24), (24, 6), False),
}


def far(op: Op, shape: tuple[int, ...]) -> Floats:
    """Weights of which those of the first inputs reach twenty times as far as the others."""
    made = np.random.default_rng(0).normal(size=shape) * 0.1
    if isinstance(op, MatMul):
        made[:3] *= 20
    elif made.shape[1] > 1:
        made[:, :3] *= 20
    return made.astype(np.float32)


def net(op: Op, x: tuple[int, ...], w: tuple[int, ...], *, bias: bool) -> Module:
    module = Module("net", {"": 17})
    held = module.graph.add_input("x", TensorType(Elem.F32, x))
    operands = [held, module.add_constant("w", Data.of(far(op, w)))]
    if bias:
        numbers = np.random.default_rng(1).normal(size=6).astype(np.float32)
        operands.append(module.add_constant("b", Data.of(numbers)))
    module.graph.set_outputs([module.graph.insert(op, operands, None, ["y"]).result])
    return module


def samples_for(x: tuple[int, ...]) -> Samples:
    """Numbers of mean 0.5, save that the first three inputs hardly vary."""
    rng = np.random.default_rng(5)
    scale = np.ones(x[-1] if len(x) == 2 else (x[1], 1, 1))
    scale[:3] = 1e-3
    made = [rng.normal(0.5, 1, x) * scale for _ in range(6)]
    return [{"x": m.astype(np.float32)} for m in made]


def rows_of(weight: Floats, op: Op) -> Floats:
    return weight.T if isinstance(op, MatMul) else weight.reshape(len(weight), -1)


def weight_of(module: Module) -> Floats:
    found = next(module.graph.nodes()).at(1)
    assert isinstance(found, Constant)
    assert found.data.array().dtype == np.float32
    return found.data.array()


def rounded(rows: Floats, *, shared: bool) -> Floats:
    """Rows at 127 steps a side, a scale for each or for all, by numpy."""
    largest = np.abs(rows).max(axis=None if shared else 1, keepdims=True)
    return np.rint(rows / (largest / 127)) * (largest / 127)


def outputs(weight: Floats, module: Module, samples: Samples) -> Floats:
    """What the float module would give with another weight, one output channel last."""
    changed = run(module, "")
    node = next(changed.graph.nodes())
    made = changed.add_constant("other", Data.of(weight.astype(np.float32)))
    node.set_operand(1, made)
    changed.drop_unused_constants()
    found = [Runner(changed).run(s)["y"] for s in samples]
    return np.concatenate([np.moveaxis(f, 1, -1).reshape(-1, f.shape[1]) for f in found])


def error(rows: Floats, module: Module, op: Op, samples: Samples, *, bias: bool) -> Floats:
    """The squared error of each output for rows that replace the weight's; a bias that the
    product may have takes the mean.
    """
    held = weight_of(module)
    weight = rows.T if isinstance(op, MatMul) else rows.reshape(held.shape)
    lost = outputs(weight, module, samples) - outputs(held, module, samples)
    if bias:
        lost = lost - lost.mean(axis=0)
    return np.square(lost.astype(np.float64)).mean(axis=0)


@pytest.mark.parametrize("case", CASES)
def test_each_row_reaches_as_far_as_errs_least(case: str) -> None:
    op, x, w, bias = CASES[case]
    module, samples = net(op, x, w, bias=bias), samples_for(x)
    found = rows_of(weight_of(run(module, "refine-weight-scales", samples=samples)), op)
    rows = rows_of(weight_of(module), op)
    takes = not isinstance(op, MatMul)
    largest = np.abs(rows).max(axis=1, keepdims=True)
    each = [
        error(rounded(np.clip(rows, -r * largest, r * largest), shared=False),
              module, op, samples, bias=takes)
        for r in np.linspace(0.3, 1, 15)
    ]  # fmt: skip
    chosen = error(rounded(found, shared=False), module, op, samples, bias=takes)
    np.testing.assert_array_less(chosen, np.min(each, axis=0) * 1.02 + 1e-12)


def test_one_scale_gains_most() -> None:
    op, x, w, bias = CASES["gemm"]
    module, samples = net(op, x, w, bias=bias), samples_for(x)
    text = 'refine-weight-scales{scheme="per-tensor"}'
    found = weight_of(run(module, text, samples=samples))
    held = weight_of(module)
    bound = np.abs(found).max()
    assert bound < np.abs(held).max()
    np.testing.assert_array_equal(found, np.clip(held, -bound, bound))
    before, after = (
        error(rounded(rows, shared=True), module, op, samples, bias=True).sum()
        for rows in (held, found)
    )
    assert after < 0.8 * before


@pytest.mark.parametrize("case", ["conv", "conv without bias", "gemm"])
def test_the_bias_takes_the_mean_of_what_is_clipped(case: str) -> None:
    op, x, w, bias = CASES[case]
    module, samples = net(op, x, w, bias=bias), samples_for(x)
    clipped = run(module, "refine-weight-scales", samples=samples)
    assert not np.array_equal(weight_of(clipped), weight_of(module))
    exact, found = (
        np.concatenate([Runner(m).run(s)["y"] for s in samples]) for m in (module, clipped)
    )
    axes = (0, *range(2, exact.ndim))
    np.testing.assert_allclose(found.mean(axis=axes), exact.mean(axis=axes), atol=1e-4)
    assert np.abs(found - exact).max() > 1e-4


def test_a_product_without_a_bias_gets_none() -> None:
    op, x, w, bias = CASES["matmul"]
    module = net(op, x, w, bias=bias)
    clipped = run(module, "refine-weight-scales", samples=samples_for(x))
    node = next(clipped.graph.nodes())
    assert len(node.present_operands) == 2


def even() -> Module:
    """A weight whose numbers are whole steps of its scale."""
    module = Module("net", {"": 17})
    held = module.graph.add_input("x", TensorType(Elem.F32, (8, 3)))
    weight = module.add_constant("w", Data.of(np.array([[127], [64], [-3]], np.float32)))
    node = module.graph.insert(MatMul(), [held, weight], None, ["y"])
    module.graph.set_outputs([node.result])
    return module


def test_what_is_exact_is_left_alone_and_told() -> None:
    module, context = even(), PassContext(mismatches=[], samples=samples_for((8, 3)))
    before = print_module(module)
    assert RefineWeightScales().run(module.graph, context) == 0
    assert print_module(module) == before
    assert [m.reason for m in context.mismatches or []] == ["no narrower scale errs less"]


def test_data_that_are_not_finite_clip_nothing() -> None:
    module = even()
    context = PassContext(samples=[{"x": np.full((8, 3), np.nan, np.float32)}])
    assert RefineWeightScales().run(module.graph, context) == 0
    assert "not finite" in str(context.warnings[0])


def test_what_the_pass_says() -> None:
    op, x, w, bias = CASES["gemm"]
    module, context = net(op, x, w, bias=bias), PassContext(samples=samples_for(x))
    assert RefineWeightScales().run(module.graph, context) > 0
    assert context.statistics["weights clipped"] == 1
    assert context.statistics["numbers clipped"] > 0
    assert any(name.startswith("w_clipped") for name in module.constants)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ('scheme="per-row"', "unknown scheme 'per-row'"),
        ('target="nowhere"', "unknown target 'nowhere'"),
    ],
)
def test_options_that_are_none(options: str, message: str) -> None:
    with pytest.raises(QdqcError, match=message):
        run(even(), f"refine-weight-scales{{{options}}}", samples=samples_for((8, 3)))


def test_zeros_stay_zeros() -> None:
    module = even()
    node = next(module.graph.nodes())
    node.set_operand(1, module.add_constant("z", Data.of(np.zeros((3, 1), np.float32))))
    module.drop_unused_constants()
    before = print_module(module)
    context = PassContext(samples=samples_for((8, 3)))
    assert RefineWeightScales().run(module.graph, context) == 0
    assert print_module(module) == before
