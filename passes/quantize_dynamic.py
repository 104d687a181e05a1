"""quantize-dynamic: products of mode DYN8 take their activations' scale as they run."""

from __future__ import annotations

from typing import Any

import numpy as np

from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.data import Data
from qdqc.ir.graph import Graph
from qdqc.ir.types import Array, Elem
from qdqc.ops import (
    Add,
    Cast,
    Clip,
    Conv,
    ConvInteger,
    DynamicQuantizeLinear,
    Gemm,
    MatMulInteger,
    Mul,
)
from qdqc.pipeline.pass_ import Pass, PassContext
from qdqc.quant.arithmetic import numbers, quantize, weight_quant
from qdqc.quant.refusals import dynamic_refusal
from qdqc.quant.splice import Splice

__all__ = ["QuantizeDynamic"]

_MIDDLE = 128
"""Zero point of u8 weights: onnxruntime up to 1.23 has no ConvInteger of i8 weights."""


class QuantizeDynamic(Pass):
    """Let products of mode DYN8 run in integers whose scale is found as they run.

    x @ W + b = cast((x_q - z_x) @ W_q) * (s_x s_W) + b, where x_q, s_x and z_x come from one
    dynamic_quantize_linear for all readers of x, and W_q has 8 bits per output channel.
    onnxruntime makes DynamicQuantizeMatMul of the spelling of a MatMul or Gemm. A Conv is a
    conv_integer with u8 weights. Other ops of the mode stay float.
    """

    name = "quantize-dynamic"

    def run(self, graph: Graph, ctx: PassContext) -> int:
        casts: dict[Value, Node[Any]] = {}
        planned = [n for n in graph.nodes() if n.mode == "DYN8"]
        changes = 0
        for node in planned:
            if dynamic_refusal(node) is None:
                _lay(node, casts)
                changes += 1
        ctx.statistics["dynamic products"] += changes
        convolutions = sum(isinstance(n.op, ConvInteger) for n in graph.nodes())
        if changes and convolutions:
            ctx.warn(
                f"{convolutions} convolutions take their scale as they run, which onnxruntime does "
                f"slower than in float",
                None,
                "INT8 with a calibration table is the fast form of a convolution",
            )
        return changes + graph.module.drop_unused_constants()


def _lay(node: Node[Any], casts: dict[Value, Node[Any]]) -> None:
    x = node.at(0)
    assert x is not None
    splice = Splice(node)
    if x not in casts:
        casts[x] = splice.node_of(DynamicQuantizeLinear(), x)
    stored, x_scale, x_zero = casts[x].present_results
    if isinstance(node.op, Conv):
        sums, scales, bias = _convolved(node, splice, stored, x_zero)
    else:
        sums, scales, bias = _multiplied(node, splice, stored, x_zero)
    scale = splice.op(Mul(), x_scale, splice.constant(scales, "scale"))
    steps: list[tuple[Any, list[Value]]] = [(Mul(), [splice.op(Cast(to="f32"), sums), scale])]
    if bias is not None:
        steps.append((Add(), [bias]))
    clamp = node.op.clamp
    if clamp is not None:
        steps.append((Clip(min=clamp[0], max=clamp[1]), []))
    last: list[Value] = []
    for index, (step, operands) in enumerate(steps):
        make = splice.finish if index == len(steps) - 1 else splice.op
        last = [make(step, *last, *operands)]


def _weight(node: Node[Any]) -> Constant:
    weight = node.at(1)
    assert isinstance(weight, Constant)
    return weight


def _multiplied(
    node: Node[Any], splice: Splice, stored: Value, zero: Value
) -> tuple[Value, Array, Value | None]:
    """The sums of a matrix product in i32, the weight's scale per column, and the bias."""
    op, weight = node.op, _weight(node)
    turned = isinstance(op, Gemm) and op.trans_b
    array, scale = _integers(weight, 0 if turned else 1)
    integers = _stored(weight, np.ascontiguousarray(array.T) if turned else array)
    return splice.op(MatMulInteger(), stored, integers, zero), scale, node.at(2)


def _convolved(
    node: Node[Any], splice: Splice, stored: Value, zero: Value
) -> tuple[Value, Array, Value | None]:
    """The sums of a convolution in i32, the weight's scale per channel, and the bias."""
    op, weight, bias = node.op, _weight(node), node.operand("bias")
    array, scale = _integers(weight, 0)
    weights = _stored(weight, (array.astype(np.int16) + _MIDDLE).astype(np.uint8))
    conv = ConvInteger(
        pads=op.pads,
        strides=op.strides,
        dilations=op.dilations,
        group=op.group,
        auto_pad=op.auto_pad,
    )
    middle = splice.constant(np.array(_MIDDLE, np.uint8), "zero")
    shape = (1, -1, *[1] * (array.ndim - 2))
    if isinstance(bias, Constant):
        bias = splice.constant(bias.data.array().reshape(shape), "bias")
    scale = scale.reshape(shape if scale.ndim else ())
    return splice.op(conv, stored, weights, zero, middle), scale, bias


def _integers(weight: Constant, axis: int) -> tuple[Array, Array]:
    """Integers of 8 bits and their scales along ``axis``, those that the weight has if it can."""
    quant = weight.tensor.quant
    symmetric = quant is not None and not quant.zero_point.any()
    if quant is not None and symmetric and quant.axis in (None, axis) and weight.elem is Elem.I8:
        return weight.data.array(), quant.scale
    array = numbers(weight)
    quant = weight_quant(array, axis, Elem.I8.limits[1])
    return quantize(array, quant, Elem.I8, narrow=True), quant.scale


def _stored(weight: Constant, integers: Array) -> Constant:
    module = weight.module
    data = Data.of(integers)
    return module.add_constant(module.fresh_name(f"{weight.name}_{data.elem.text}"), data)
