"""Casts between numbers and their quantized form. The types of the values hold the scales."""

from __future__ import annotations

from compiler.ir.op import Onnx, Op
from compiler.ir.types import TensorType

__all__ = ["Dequantize", "Quantize"]


class Quantize(Op):
    """Rounds float values into the integer type of its result, whose type has the scale."""

    name = "quantize"
    operands = ("x",)
    results = ("y",)
    onnx = Onnx("QuantizeLinear", since=13)

    def infer(self, x: TensorType) -> tuple[TensorType]:
        return (TensorType(x.elem, x.shape),)


class Dequantize(Op):
    """Gives the float values that a quantized value stands for.

    ``axis`` writes a per-tensor scale out once per element of that axis. The numbers are the
    same; onnxruntime leaves a float weight behind such a cast alone.
    """

    name = "dequantize"
    operands = ("x",)
    results = ("y",)
    onnx = Onnx("DequantizeLinear", since=13)

    axis: int | None = None

    def infer(self, x: TensorType) -> tuple[TensorType]:
        return (TensorType(x.elem, x.shape),)
