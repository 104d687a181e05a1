"""Biases take up what rounding the weights does to the mean of the results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from qdqc.calibration.table import Table, save_table
from qdqc.ir.core import Constant
from qdqc.ir.data import Data
from qdqc.ir.graph import Module
from qdqc.ir.op import Op
from qdqc.ir.types import Elem, Range, TensorType
from qdqc.ops import Conv, Gemm, MatMul
from qdqc.passes.correct_bias import CorrectBias
from qdqc.pipeline.manager import run
from qdqc.pipeline.pass_ import PassContext
from qdqc.runtime.sessions.session import Runner
from qdqc.text.printer import print_module

Floats = npt.NDArray[np.float32]
WIDE = Range(-100, 100, 100)


def net(op: Op, x: tuple[int, ...], w: tuple[int, ...], bias: int | None = None) -> Module:
    """x -> op(x, w, bias) -> y, to be quantized; weights are coarse next to their scales."""
    rng = np.random.default_rng(3)
    module = Module("net", {"": 17})
    held = module.graph.add_input("x", TensorType(Elem.F32, x, range=WIDE))
    weight = (rng.normal(0, 1, w) * np.exp(rng.normal(0, 2, w))).astype(np.float32)
    operands = [held, module.add_constant("w", Data.of(weight))]
    if bias is not None:
        numbers = rng.normal(0, 1, bias).astype(np.float32)
        operands.append(module.add_constant("b", Data.of(numbers)))
    node = module.graph.insert(op, operands, None, ["y"], mode="INT8")
    node.result.type = node.result.tensor.with_range(WIDE)
    module.graph.set_outputs([node.result])
    return module


def table_with(folder: Path, **means: npt.ArrayLike) -> str:
    path = folder / "t.cali_table"
    held = {name: tuple(np.asarray(m, np.float64).tolist()) for name, m in means.items()}
    save_table(Table(channel_means=held), path)
    return str(path)


def correct(module: Module, table: str, **options: Any) -> dict[str, int]:
    """Run the pass; what it counted. It reports changes exactly where the text changes."""
    ctx, before = PassContext(), print_module(module, elide=True)
    changes = CorrectBias(table=table, **options).run(module.graph, ctx)
    assert (changes > 0) == (print_module(module, elide=True) != before)
    return {name: count for name, count in ctx.statistics.items() if count}


def drawn(shape: tuple[int, ...], mean: npt.NDArray[np.float64]) -> Floats:
    """Numbers whose mean over the batch is ``mean`` by channel, at every place."""
    rng = np.random.default_rng(4)
    half = rng.normal(0, 1, (shape[0] // 2, *shape[1:]))
    middle = mean.reshape(1, -1, *[1] * (len(shape) - 2))
    return np.concatenate([middle + half, middle - half]).astype(np.float32)


def rounded(weight: Floats, axis: int | None) -> Floats:
    """Symmetric 8 bits, 127 steps on either side, by numpy alone."""
    others = None if axis is None else tuple(i for i in range(weight.ndim) if i != axis)
    scale = np.abs(weight).max(axis=others, keepdims=True) / 127
    return (np.rint(weight / scale) * scale).astype(np.float32)


def mean_result(module: Module, x: Floats, weight: Floats | None = None) -> Floats:
    """The mean over the batch of what onnxruntime gives, with another weight."""
    if weight is not None:
        node = next(module.graph.nodes())
        made = module.add_constant(module.fresh_name("other"), Data.of(weight))
        node.set_operand(1, made)
    return np.asarray(Runner(module).run({"x": x})["y"]).mean(axis=0)


CASES: dict[str, tuple[Op, tuple[int, ...], tuple[int, ...], int | None, int]] = {
    "conv": (Conv(), (8, 3, 6, 5), (4, 3, 3, 2), 4, 0),
    "no bias": (Conv(), (8, 3, 6, 5), (4, 3, 3, 2), None, 0),
    "strides": (Conv(strides=(2, 1), dilations=(1, 2)), (8, 3, 7, 7), (4, 3, 3, 3), 4, 0),
    "groups": (Conv(group=2), (8, 4, 5, 5), (6, 2, 3, 3), 6, 0),
    "depthwise": (Conv(group=4), (8, 4, 5, 5), (8, 1, 3, 3), 8, 0),
    "1-d": (Conv(), (8, 3, 9), (4, 3, 4), 4, 0),
    "3-d": (Conv(), (8, 2, 3, 3, 3), (4, 2, 2, 2, 2), 4, 0),
    "gemm": (Gemm(), (8, 5), (5, 3), 3, 1),
    "gemm trans_b": (Gemm(trans_b=True), (8, 5), (3, 5), 3, 0),
    "gemm no bias": (Gemm(trans_b=True), (8, 5), (3, 5), None, 0),
}


@pytest.mark.parametrize("scheme", ["per-channel", "per-tensor"])
@pytest.mark.parametrize("case", CASES)
def test_the_mean_of_the_result_is_kept(tmp_path: Path, case: str, scheme: str) -> None:
    op, x_shape, w_shape, bias, axis = CASES[case]
    module = net(op, x_shape, w_shape, bias)
    mean = np.linspace(-2, 5, x_shape[1])
    x = drawn(x_shape, mean)
    weight = module.constants["w"].data.array()
    coarse = rounded(weight, axis if scheme == "per-channel" else None)
    wanted = mean_result(module, x)
    uncorrected = mean_result(net(op, x_shape, w_shape, bias), x, coarse)
    assert correct(module, table_with(tmp_path, x=mean), scheme=scheme) == {"biases corrected": 1}
    found = mean_result(module, x, coarse)
    assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()
    assert np.abs(found - wanted).max() < 0.02 * np.abs(uncorrected - wanted).max()


def test_only_the_bias_changes_and_its_name_tells(tmp_path: Path) -> None:
    module = net(Conv(), (2, 3, 4, 4), (4, 3, 1, 1), 4)
    weight, old = module.constants["w"].data.digest, module.constants["b"].data.array()
    correct(module, table_with(tmp_path, x=[1, 2, 3]))
    (node,) = module.graph.nodes()
    bias = node.at(2)
    assert isinstance(bias, Constant)
    assert bias.name == "y_bias_corrected"
    assert bias.data.array().dtype == np.float32
    assert not np.array_equal(bias.data.array(), old)
    assert set(module.constants) == {"w", "y_bias_corrected"}
    assert module.constants["w"].data.digest == weight


def test_a_bias_that_others_read_stays_theirs(tmp_path: Path) -> None:
    module = net(Conv(), (2, 3, 4, 4), (4, 3, 1, 1), 4)
    (first,) = module.graph.nodes()
    again = module.graph.insert(Conv(), list(first.operands), None, ["z"], mode="F32")
    module.graph.set_outputs([first.result, again.result])
    assert correct(module, table_with(tmp_path, x=[1, 2, 3])) == {"biases corrected": 1}
    assert again.at(2) is module.constants["b"]


@pytest.mark.parametrize("means", [{}, {"other": [1, 2, 3]}, {"x": [1, 2]}, {"x": [1, 2, 3, 4]}])
def test_nodes_without_means_of_their_channels_are_left_alone(
    tmp_path: Path, means: dict[str, npt.ArrayLike]
) -> None:
    module = net(Conv(), (2, 3, 4, 4), (4, 3, 1, 1), 4)
    before = print_module(module, elide=True)
    assert correct(module, table_with(tmp_path, **means)) == {"without channel means": 1}
    assert print_module(module, elide=True) == before


def float_mode() -> Module:
    module = net(Conv(), (2, 3, 4, 4), (4, 3, 1, 1), 4)
    next(module.graph.nodes()).mode = "F32"
    return module


def without_range() -> Module:
    module = net(Conv(), (2, 3, 4, 4), (4, 3, 1, 1), 4)
    module.graph.inputs[0].type = TensorType(Elem.F32, (2, 3, 4, 4))
    return module


@pytest.mark.parametrize(
    "module",
    [
        float_mode(),
        without_range(),
        net(MatMul(), (2, 3), (3, 4)),
        net(Gemm(alpha=2), (2, 3), (3, 4)),
    ],
    ids=["its mode is F32", "no range", "no bias to correct", "no integer kernel"],
)
def test_nodes_that_stay_float_or_have_no_bias_are_left_alone(
    tmp_path: Path, module: Module
) -> None:
    before = print_module(module, elide=True)
    assert correct(module, table_with(tmp_path, x=[1, 2, 3])) == {}
    assert print_module(module, elide=True) == before


def test_weights_that_8_bits_hold_need_no_shift(tmp_path: Path) -> None:
    module = net(Conv(), (2, 3, 4, 4), (4, 3, 1, 1), 4)
    whole = np.random.default_rng(0).integers(-126, 127, (4, 3, 1, 1)).astype(np.float32)
    whole[:, 0] = 127
    next(module.graph.nodes()).set_operand(1, module.add_constant("whole", Data.of(whole)))
    old = module.constants["b"].data.array()
    correct(module, table_with(tmp_path, x=[10, 20, 30]))
    np.testing.assert_array_equal(module.constants["y_bias_corrected"].data.array(), old)


def test_in_a_pipeline_the_integer_result_comes_nearer_to_the_float_one(tmp_path: Path) -> None:
    shape, mean = (64, 4, 5, 5), np.array([3.0, 2.0, 4.0, 1.0])
    x = drawn(shape, mean)

    def made() -> Module:
        module = net(Conv(group=2), shape, (6, 2, 3, 3), 6)
        module.graph.inputs[0].type = module.graph.inputs[0].tensor.with_range(
            Range(float(x.min()), float(x.max()), float(np.abs(x).max()))
        )
        y = Runner(module).run({"x": x})["y"]
        result = module.graph.outputs[0]
        result.type = result.tensor.with_range(Range(float(y.min()), float(y.max()), 1.0))
        return module

    def off(pipeline: str) -> float:
        module = run(made(), pipeline)
        got = np.asarray(Runner(module).run({"x": x})["y"])
        wanted = np.asarray(Runner(made()).run({"x": x})["y"])
        return float(np.abs((got - wanted).mean(axis=(0, 2, 3))).max())

    corrected = off(f'correct-bias{{table="{table_with(tmp_path, x=mean)}"}},quantize,lower-to-qdq')
    assert corrected < 0.3 * off("quantize,lower-to-qdq")
