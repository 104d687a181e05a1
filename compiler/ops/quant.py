"""Casts between numbers and their quantized form. The types of the values hold the scales."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qdqc.ir.op import Onnx, Op
from qdqc.ir.types import Elem, TensorType, Type
from qdqc.ops.conv import Convolution
from qdqc.ops.inference import axis_in, need_elem
from qdqc.ops.matmul import MatMul
from qdqc.ops.shape import Identity

if TYPE_CHECKING:
    from qdqc.ir.core import Node, Value
    from qdqc.ir.expansion import Parts

__all__ = [
    "CASTS",
    "ConvInteger",
    "Dequantize",
    "DynamicQuantizeLinear",
    "MatMulInteger",
    "QLinearConv",
    "QLinearMatMul",
    "Quantize",
    "Restate",
]


_FUSED = 13
"""The opset from which runtimes fuse casts into integer kernels. onnxruntime's own rewrites put
ops next to them that opset 10, the first to have them, lacks.
"""


class Quantize(Op):
    """Rounds float values into the integer type of its result, whose type has the scale."""

    name = "quantize"
    operands = ("x",)
    results = ("y",)
    onnx = Onnx("QuantizeLinear", since=_FUSED)

    def infer(self, x: TensorType) -> tuple[TensorType]:
        return (TensorType(x.elem, x.shape),)

    def infer_node(self, node: Node[Any]) -> tuple[Type | None, ...]:
        for result in node.present_results:
            if result.elem is not None and result.quant is None:
                raise ValueError(
                    "its result has no scale: give it a type such as u8[2] q(scale = 1)"
                )
        return super().infer_node(node)


class Dequantize(Op):
    """Gives the float values that a quantized value stands for.

    ``axis`` writes a per-tensor scale out once per element of that axis. The numbers are the
    same; onnxruntime leaves a float weight behind such a cast alone.
    """

    name = "dequantize"
    operands = ("x",)
    results = ("y",)
    onnx = Onnx("DequantizeLinear", since=_FUSED)

    axis: int | None = None

    def infer(self, x: TensorType) -> tuple[TensorType]:
        if self.axis is not None and x.shape is not None:
            axis_in(self.axis, len(x.shape))
        return (TensorType(x.elem, x.shape),)

    def infer_node(self, node: Node[Any]) -> tuple[Type | None, ...]:
        for x in node.present_operands:
            if x.elem is not None and x.quant is None:
                raise ValueError("x has no scale: only a quantized value stands for others")
        return super().infer_node(node)


class Restate(Op):
    """The integers of x under another scale and zero point: a line a x + b, and nothing computed.

    The types of x and of the result hold the scales and zero points; a, their quotient, is
    positive. It is written as an Identity, which runtimes drop.
    """

    name = "restate"
    operands = ("x",)
    results = ("y",)

    def infer(self, x: TensorType) -> tuple[TensorType]:
        return (TensorType(x.elem, x.shape),)

    def infer_node(self, node: Node[Any]) -> tuple[Type | None, ...]:
        for value in (*node.present_operands, *node.present_results):
            if value.elem is not None and value.quant is None:
                raise ValueError(f"{value} has no scale: only integers can be restated")
        return super().infer_node(node)

    def expand(self, parts: Parts, x: Value) -> Value:
        return parts.op(Identity(), x)


class DynamicQuantizeLinear(Op):
    """x as u8 by the scale and zero point of its own range; results are y, scale, zero point."""

    name = "dynamic_quantize_linear"
    operands = ("x",)
    results = ("y", "y_scale", "y_zero_point")
    onnx = Onnx("DynamicQuantizeLinear", since=11)

    def infer(self, x: TensorType) -> tuple[TensorType, TensorType, TensorType]:
        need_elem(x, "x", Elem.F32)
        return (TensorType(Elem.U8, x.shape), TensorType(Elem.F32, ()), TensorType(Elem.U8, ()))


class MatMulInteger(Op):
    """(a - a_zero_point) @ (b - b_zero_point) on 8-bit integers, summed in i32."""

    name = "matmul_integer"
    operands = ("a", "b", "a_zero_point?", "b_zero_point?")
    onnx = Onnx("MatMulInteger", since=10)

    def infer(
        self,
        a: TensorType,
        b: TensorType,
        a_zero_point: TensorType | None = None,
        b_zero_point: TensorType | None = None,
    ) -> tuple[TensorType]:
        need_elem(a, "a", Elem.U8, Elem.I8)
        need_elem(b, "b", Elem.U8, Elem.I8)
        return MatMul().infer(TensorType(Elem.I32, a.shape), TensorType(Elem.I32, b.shape))


class QLinearMatMul(Op):
    """a @ b on the numbers that quantized a and b stand for, quantized again.

    Scales and zero points are operands: this is the form of models that were quantized without
    QuantizeLinear nodes.
    """

    name = "qlinear_matmul"
    operands = (
        *("a", "a_scale", "a_zero_point", "b", "b_scale", "b_zero_point"),
        *("y_scale", "y_zero_point"),
    )
    onnx = Onnx("QLinearMatMul", since=10)

    def infer(
        self,
        a: TensorType,
        a_scale: TensorType,
        a_zero_point: TensorType,
        b: TensorType,
        b_scale: TensorType,
        b_zero_point: TensorType,
        y_scale: TensorType,
        y_zero_point: TensorType,
    ) -> tuple[TensorType]:
        product = MatMul().infer(TensorType(Elem.I32, a.shape), TensorType(Elem.I32, b.shape))
        return (TensorType(y_zero_point.elem, product[0].shape),)


class ConvInteger(Convolution):
    """Convolution on 8-bit integers, summed in i32; attributes are those of Conv."""

    name = "conv_integer"
    operands = ("x", "weight", "x_zero_point?", "weight_zero_point?")
    onnx = Onnx("ConvInteger", since=10, ignored=("kernel_shape",))

    def infer(
        self,
        x: TensorType,
        weight: TensorType,
        x_zero_point: TensorType | None = None,
        weight_zero_point: TensorType | None = None,
    ) -> tuple[TensorType]:
        need_elem(x, "x", Elem.U8, Elem.I8)
        need_elem(weight, "weight", Elem.U8, Elem.I8)
        return (TensorType(Elem.I32, self.result_shape(x, weight)),)


class QLinearConv(Convolution):
    """Convolution on the numbers that quantized x and weight stand for, quantized again.

    Scales and zero points are operands; ``bias`` is i32 in the scale x_scale * weight_scale.
    Attributes and sizes are those of Conv.
    """

    name = "qlinear_conv"
    operands = (
        *("x", "x_scale", "x_zero_point", "weight", "weight_scale", "weight_zero_point"),
        *("y_scale", "y_zero_point", "bias?"),
    )
    onnx = Onnx("QLinearConv", since=10, ignored=("kernel_shape",))

    def infer(
        self,
        x: TensorType,
        x_scale: TensorType,
        x_zero_point: TensorType,
        weight: TensorType,
        weight_scale: TensorType,
        weight_zero_point: TensorType,
        y_scale: TensorType,
        y_zero_point: TensorType,
        bias: TensorType | None = None,
    ) -> tuple[TensorType]:
        if bias is not None:
            need_elem(bias, "bias", Elem.I32)
        return (TensorType(y_zero_point.elem, self.result_shape(x, weight, bias)),)


CASTS = (Quantize, Dequantize, Restate)
"""Ops that stand between numbers and integers, or between two readings of integers; they compute
nothing of a network.
"""
