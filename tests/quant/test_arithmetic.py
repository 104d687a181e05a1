"""Scales, zero points and rounding, against the definitions and against onnxruntime."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from qdqc.ir.types import Elem, Quant, Range
from qdqc.quant.arithmetic import (
    ALL_ZERO,
    absorbs,
    activation_quant,
    bias_floor,
    bias_quant,
    dequantize,
    quantize,
    weight_quant,
)
from qdqc.runtime.sessions.session import open_session

RNG = np.random.default_rng(0)
NUMBERS = st.floats(-1e4, 1e4, width=32)


def span(low: float, high: float) -> Range:
    return Range(low, high, max(abs(low), abs(high)))


def in_onnxruntime(
    array: npt.NDArray[Any], quant: Quant, elem: Elem
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """QuantizeLinear and DequantizeLinear of an array, as onnxruntime computes them."""
    zero = quant.zero_point.astype(elem.dtype)
    attrs = {} if quant.axis is None else {"axis": quant.axis}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **attrs),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], **attrs),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, array.shape)],
        [
            helper.make_tensor_value_info("q", helper.np_dtype_to_tensor_dtype(elem.dtype), None),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
        ],
        [numpy_helper.from_array(quant.scale, "s"), numpy_helper.from_array(zero, "z")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    stored, real = open_session(model, optimise="off").run(None, {"x": array})
    return np.asarray(stored), np.asarray(real)


@pytest.mark.parametrize("elem", [Elem.U8, Elem.I8])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_rounding_is_onnxruntimes_bit_for_bit(elem: Elem, axis: int | None) -> None:
    array = RNG.normal(0, 3, (4, 5, 64)).astype(np.float32)
    scale: Any = 0.017 if axis is None else RNG.uniform(0.001, 0.05, array.shape[axis])
    quant = Quant.make(scale, 3, axis)
    array[:, :, :8] = np.arange(-4, 4) * 0.5 * 0.017  # ties, where a float32 makes them
    array[0, 0, 9:11] = [1e9, -1e9]
    stored, real = in_onnxruntime(array, quant, elem)
    np.testing.assert_array_equal(quantize(array, quant, elem), stored)
    np.testing.assert_array_equal(dequantize(stored, quant), real)


def test_ties_go_to_the_even_neighbour() -> None:
    found = quantize(np.array([0.5, 1.5, 2.5, -0.5, -1.5], np.float32), Quant.make(1.0), Elem.I8)
    np.testing.assert_array_equal(found, [0, 2, 2, 0, -2])


def test_narrow_leaves_out_the_most_negative_value() -> None:
    array = np.array([-9.0, 9.0], np.float32)
    assert quantize(array, Quant.make(0.01), Elem.I8).tolist() == [-128, 127]
    assert quantize(array, Quant.make(0.01), Elem.I8, narrow=True).tolist() == [-127, 127]


def test_blocks_share_a_scale() -> None:
    array = np.arange(8, dtype=np.float32).reshape(4, 2)
    quant = Quant.make([[1.0, 1.0], [2.0, 0.5]], 0, axis=0, block=2)
    stored = quantize(array, quant, Elem.I8)
    assert stored.tolist() == [[0, 1], [2, 3], [2, 10], [3, 14]]
    np.testing.assert_array_equal(dequantize(stored, quant)[:2], array[:2])


@pytest.mark.parametrize(
    ("low", "high", "scale", "zero"),
    [
        (0.0, 6.0, 6 / 255, 0),
        (-1.0, 3.0, 4 / 255, 64),
        (2.0, 5.1, 5.1 / 255, 0),  # widened to hold zero
        (-2.55, -1.0, 0.01, 255),
        (-1.28, 1.27, 0.01, 128),
    ],
)
def test_asymmetric_activations(low: float, high: float, scale: float, zero: int) -> None:
    quant = activation_quant(span(low, high), Elem.U8)
    assert quant.scale == pytest.approx(scale, rel=1e-6)
    assert quant.zero_point == zero


def test_symmetric_activations_use_the_threshold() -> None:
    middle = activation_quant(Range(-3.0, 1.0, 2.54), Elem.U8, symmetric=True)
    assert (float(middle.scale), int(middle.zero_point)) == (pytest.approx(0.02), 128)
    signed = activation_quant(Range(-3.0, 1.0, 2.54), Elem.I8, symmetric=True)
    assert (float(signed.scale), int(signed.zero_point)) == (pytest.approx(0.02), 0)
    positive = activation_quant(Range(0.0, 9.0, 5.1), Elem.U8, symmetric=True)
    assert (float(positive.scale), int(positive.zero_point)) == (pytest.approx(0.02), 0)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("elem", [Elem.U8, Elem.I8])
def test_a_range_without_extent_gives_a_usable_scale(elem: Elem, symmetric: bool) -> None:
    quant = activation_quant(Range(0.0, 0.0, 0.0), elem, symmetric=symmetric)
    assert quant.scale == 1
    assert elem.limits[0] <= quant.zero_point <= elem.limits[1]
    zero = np.zeros(3, np.float32)
    assert not dequantize(quantize(zero, quant, elem), quant).any()


@given(low=NUMBERS, high=NUMBERS, symmetric=st.booleans(), signed=st.booleans())
@settings(max_examples=200, deadline=None)
def test_zero_is_exact_and_the_range_is_covered(
    low: float, high: float, symmetric: bool, signed: bool
) -> None:
    low, high = min(low, high), max(low, high)
    elem = Elem.I8 if signed else Elem.U8
    quant = activation_quant(span(low, high), elem, symmetric=symmetric)
    ends = np.array([0.0, low, high], np.float32)
    back = dequantize(quantize(ends, quant, elem), quant)
    assert back[0] == 0
    assert np.abs(back - ends).max() <= 0.501 * float(quant.scale) * (1 + 1e-5)


CLAMPS = [(0.0, math.inf), (0.0, 6.0), (-1.0, 1.0), (-0.5, 2.0), (-math.inf, 0.0), (-3.0, 0.0)]


@pytest.mark.parametrize("clamp", CLAMPS)
@given(low=NUMBERS, high=NUMBERS, symmetric=st.booleans())
@settings(max_examples=100, deadline=None)
def test_a_clamp_becomes_saturation(
    clamp: tuple[float, float], low: float, high: float, symmetric: bool
) -> None:
    """Whatever the range before the clamp: integers end where the clamp does, or before."""
    low, high = np.clip([min(low, high), max(low, high)], *clamp)
    quant = activation_quant(span(low, high), Elem.U8, symmetric=symmetric, clamp=clamp)
    assert absorbs(quant, clamp, Elem.U8)
    ends = dequantize(np.array([0, 255], np.uint8), quant)
    slack = float(quant.scale) * 1.01
    assert ends[0] >= clamp[0] - slack
    assert ends[1] <= clamp[1] + slack


def test_relu_has_zero_point_zero_and_relu6_at_most_its_scale() -> None:
    relu = activation_quant(span(-4.0, 3.0), Elem.U8, clamp=(0.0, math.inf))
    assert relu.zero_point == 0
    relu6 = activation_quant(span(-4.0, 30.0), Elem.U8, clamp=(0.0, 6.0))
    assert relu6.zero_point == 0
    assert float(relu6.scale) <= 6 / 255 * (1 + 1e-6)
    assert relu6.scale == np.float32(6 / 255)


def test_a_wider_scale_does_not_absorb() -> None:
    assert not absorbs(Quant.make(7 / 255, 0), (0.0, 6.0), Elem.U8)
    assert not absorbs(Quant.make(0.1, 5), (0.0, math.inf), Elem.U8)


@pytest.mark.parametrize("axis", [None, 0, 1, 2])
def test_weights_per_axis(axis: int | None) -> None:
    weight = RNG.normal(0, 1, (4, 5, 3)).astype(np.float32)
    quant = weight_quant(weight, axis, 127)
    wanted = (
        np.abs(weight).max()
        if axis is None
        else np.abs(np.moveaxis(weight, axis, 0)).max(axis=(1, 2))
    )
    np.testing.assert_array_equal(quant.scale, (wanted / 127).astype(np.float32))
    assert not quant.zero_point.any()
    stored = quantize(weight, quant, Elem.I8, narrow=True)
    assert stored.min() >= -127
    assert np.abs(stored).max() == 127
    scales = (
        quant.scale
        if axis is None
        else quant.scale.reshape([-1 if i == axis else 1 for i in range(3)])
    )
    assert (np.abs(dequantize(stored, quant) - weight) <= 0.5001 * scales).all()


def test_a_channel_of_zeros_takes_the_largest_scale() -> None:
    weight = np.zeros((3, 2), np.float32)
    weight[0], weight[2] = 1.27, 2.54
    np.testing.assert_allclose(weight_quant(weight, 0, 127).scale, [0.01, 0.02, 0.02])
    np.testing.assert_array_equal(weight_quant(weight * 0, 0, 127).scale, [1, 1, 1])


@pytest.mark.parametrize("dead", [0.0, 1e-9, 1e-30, 1e-45])
@pytest.mark.parametrize("bias", [1.0, -3e4])
def test_the_bias_of_a_dead_channel_neither_overflows_nor_is_lost(dead: float, bias: float) -> None:
    weight = np.full((2, 4), dead, np.float32)
    weight[1] = 0.5
    held, scale_x = np.array([bias, 0.25], np.float32), np.float32(0.02)
    quant = weight_quant(weight, 0, 127, floor=bias_floor(held, float(scale_x)))
    scale = bias_quant(scale_x, quant)
    wide = np.rint(held.astype(np.float64) / scale.scale.astype(np.float64))
    assert (np.abs(wide) <= 2**30 * (1 + 1e-6)).all()
    stored = quantize(held, scale, Elem.I32)
    np.testing.assert_array_equal(stored, wide)
    step = np.maximum(scale.scale, np.abs(held) * 2e-7)
    assert (np.abs(dequantize(stored, scale) - held) <= step).all()


def test_the_bias_scale_is_the_float32_product() -> None:
    """onnxruntime wants s_x * s_w of each channel, and refuses or misreads anything else."""
    weight = weight_quant(RNG.normal(0, 1, (7, 3)).astype(np.float32), 0, 127)
    scale_x = np.float32(0.0123)
    found = bias_quant(scale_x, weight)
    assert found.axis == 0
    assert found.scale.dtype == np.float32
    for mine, other in zip(found.scale, weight.scale, strict=True):
        assert mine == np.float32(scale_x * other)
    single = bias_quant(scale_x, weight_quant(np.ones((2, 2), np.float32), None, 127))
    assert single.axis is None
    assert single.scale.shape == ()


def test_bias_rounding_is_right_beyond_the_digits_of_float32() -> None:
    quant = Quant.make(1e-6)
    bias = np.array([16.777217, 1000.000001], np.float64).astype(np.float32)
    wanted = np.rint(bias.astype(np.float64) / np.float64(np.float32(1e-6)))
    np.testing.assert_array_equal(quantize(bias, quant, Elem.I32), wanted)


@pytest.mark.parametrize("clamp", [None, (0.0, 6.0), (0.0, 0.5)])
def test_a_value_that_was_always_zero_has_a_scale_of_use(clamp: tuple[float, float] | None) -> None:
    quant = activation_quant(ALL_ZERO, Elem.U8, clamp=clamp)
    top = 255 * float(quant.scale)
    assert int(quant.zero_point) == 0
    assert 0.5 <= top <= 1.001
    # A bias of any usual size fits beside it without a coarser weight scale.
    assert float(bias_floor(np.array([100.0]), float(quant.scale))[0]) < 1e-4
    tiny = activation_quant(Range(0.0, 1e-6, 1e-6), Elem.U8, clamp=clamp)
    assert float(tiny.scale) < 1e-8, "a small value that was seen keeps its range"
