"""A transposed convolution runs in integers, in onnxruntime's own kernels."""

from __future__ import annotations

from typing import Any

import pytest

from qdqc.ops import Conv, ConvTranspose

PARTS = "assign-precision,decompose-conv-transpose"


@pytest.mark.parametrize(
    ("kernel", "op"),
    [
        (2, ConvTranspose(strides=(2, 2), clamp=(0.0, float("inf")))),
        (3, ConvTranspose(strides=(2, 2), pads=(1, 1, 1, 1), output_padding=(1, 1))),
        (4, ConvTranspose(strides=(2, 2), pads=(1, 1, 1, 1))),
        (5, ConvTranspose(strides=(3, 2), pads=(1, 1, 1, 2))),
    ],
)
def test_between_convolutions_all_is_integer(
    net: Any, quantized: Any, kernel: int, op: ConvTranspose
) -> None:
    made = net()
    a = made.op("a", Conv(), made.input("x", 1, 3, 6, 6), made.weight("wa", 8, 3, 1, 1))
    up = made.op("up", op, a, made.weight("wu", 8, 4, kernel, kernel), made.weight("bu", 4))
    y = made.op("y", Conv(), up, made.weight("wy", 4, 4, 1, 1))
    done = quantized(made.returns(y), precision=PARTS)
    assert done.kernels["QLinearConv"] == 3
    assert done.kernels["QuantizeLinear"] == done.kernels["DequantizeLinear"] == 1
    assert done.kernels["ConvTranspose"] == 0
    assert done.kernels["Transpose"] <= 3, "the outer ones are only those of the graph's ends"


def test_at_the_end_only_the_shuffled_integers_are_cast(net: Any, quantized: Any) -> None:
    made = net()
    x, weight = made.input("x", 1, 3, 6, 6), made.weight("w", 3, 4, 2, 2)
    done = quantized(
        made.returns(made.op("y", ConvTranspose(strides=(2, 2)), x, weight)), precision=PARTS
    )
    assert done.kernels["QLinearConv"] == 1
    assert done.kernels["QuantizeLinear"] == done.kernels["DequantizeLinear"] == 1
