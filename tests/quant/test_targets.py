"""Each target's integers, held against sums in int64 that numpy makes of the same weights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from qdqc.diagnostics import QdqcError
from qdqc.ir.core import Constant, Node
from qdqc.ir.graph import Module
from qdqc.ir.types import Elem
from qdqc.ops import Conv, Quantize
from qdqc.pipeline.manager import run
from qdqc.quant.targets.target import target_named
from qdqc.runtime.sessions.session import Runner

TARGETS = ("ort-cpu", "ort-cpu-avx2", "openvino")


@pytest.fixture(params=TARGETS)
def laid(request: pytest.FixtureRequest, net: Any, calibrated: Any) -> tuple[str, Module, Any]:
    """x -> conv a (relu) -> conv b, laid for a target."""
    made = net(3)
    a = made.op(
        "a",
        Conv(clamp=(0.0, math.inf)),
        made.input("x", 1, 4, 3, 3),
        made.weight("wa", 8, 4, 1, 1),
        made.weight("ba", 8),
    )
    b = made.op("b", Conv(), a, made.weight("wb", 5, 8, 1, 1), made.weight("bb", 5))
    module = calibrated(made.returns(b))
    name = request.param
    typed = run(module, f"assign-precision,quantize{{target={name}}},verify-target")
    return name, typed, made


def convs(typed: Module) -> list[Node[Any]]:
    return [n for n in typed.graph.nodes() if isinstance(n.op, Conv)]


def constants(node: Node[Any]) -> tuple[Constant, Constant]:
    weight, bias = node.operands[1:3]
    assert isinstance(weight, Constant)
    assert isinstance(bias, Constant)
    return weight, bias


def test_weights_stay_within_the_targets_limit(laid: tuple[str, Module, Any]) -> None:
    name, typed, _ = laid
    limit = target_named(name).weight_limit
    assert limit == (63 if name == "ort-cpu-avx2" else 127)
    for node in convs(typed):
        weight, _ = constants(node)
        array = np.abs(weight.data.array().astype(int)).reshape(weight.data.shape[0], -1)
        assert (array.max(axis=1) == limit).all(), "each channel uses the whole of its range"


def test_biases_are_of_the_targets_type(laid: tuple[str, Module, Any]) -> None:
    name, typed, _ = laid
    for node in convs(typed):
        _, bias = constants(node)
        wanted = Elem.F32 if name == "openvino" else Elem.I32
        assert bias.tensor.elem is wanted
        assert target_named(name).bias is wanted


def test_the_numbers_are_those_of_sums_in_int64(laid: tuple[str, Module, Any]) -> None:
    """Every step by its formula: stored = round(x / s) + z, and y = s_x s_w sum(q w) + b."""
    _, typed, made = laid
    lowered = run(typed, "lower-to-qdq")
    for seed in range(4):
        feeds = made.feeds(seed)
        value = feeds["x"].astype(np.float64)
        cast = next(n for n in typed.graph.nodes() if isinstance(n.op, Quantize))
        quant = cast.result.tensor.quant
        for node in convs(typed):
            assert quant is not None
            scale, zero = float(quant.scale), int(quant.zero_point)
            q = np.clip(np.rint(value / scale), -zero, 255 - zero).astype(np.int64)
            weight, bias = constants(node)
            w = weight.data.array().astype(np.int64)[:, :, 0, 0]
            by = weight.tensor.quant
            held = bias.tensor.quant
            assert by is not None
            numbers = bias.data.array().astype(np.float64)
            if held is not None:
                numbers = numbers * held.scale
            sums = np.einsum("oc,nchw->nohw", w, q)
            value = sums * (scale * by.scale.astype(np.float64))[:, None, None]
            value = value + numbers[:, None, None]
            quant = node.result.tensor.quant
            assert quant is not None
            step, point = float(quant.scale), int(quant.zero_point)
            value = (np.clip(np.rint(value / step) + point, 0, 255) - point) * step
        found = Runner(lowered, threads=1).run(feeds)["b"]
        assert quant is not None
        assert np.abs(found - value).max() <= 1.01 * float(quant.scale), "within one rounding"


@pytest.mark.parametrize(
    ("laid_for", "other", "told"),
    [
        ("ort-cpu", "ort-cpu-avx2", "weight-range: a stored weight is 127, over 63"),
        ("openvino", "ort-cpu", "bias-type: the bias is f32, not i32 with a scale"),
        ("ort-cpu", "openvino", "bias-float: the bias is i32, not f32"),
    ],
)
def test_a_target_says_what_another_one_laid(
    laid_for: str, other: str, told: str, net: Any, calibrated: Any
) -> None:
    made = net(5)
    weight, bias = made.weight("w", 2, 2, 1, 1), made.weight("b", 2)
    y = made.op("y", Conv(), made.input("x", 1, 2, 2, 2), weight, bias)
    module = calibrated(made.returns(y))
    laid = run(module, f"assign-precision,quantize{{target={laid_for}}},verify-target")
    with pytest.raises(QdqcError, match=f"{other} wants {told}"):
        run(laid, f"verify-target{{target={other}}}")
