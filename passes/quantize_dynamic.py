"""quantize-dynamic: products of mode DYN8 take their activations' scale as they run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.data import Data
from qdqc.ir.graph import Graph
from qdqc.ir.types import Array, Elem
from qdqc.ops import (
    LSTM,
    Add,
    Cast,
    Clip,
    Conv,
    ConvInteger,
    DynamicQuantizeLinear,
    DynamicQuantizeLSTM,
    Gemm,
    MatMulInteger,
    Mul,
)
from qdqc.pipeline.pass_ import Pass, PassContext
from qdqc.quant.arithmetic import numbers, quantize, row_quant, weight_quant
from qdqc.quant.refusals import dynamic_refusal
from qdqc.quant.splice import Splice
from qdqc.quant.targets.target import target_named

__all__ = ["QuantizeDynamic"]

_MIDDLE = 128
"""Zero point of u8 weights: onnxruntime up to 1.23 has no ConvInteger of i8 weights."""


class QuantizeDynamic(Pass):
    """Let products of mode DYN8 run in integers whose scale is found as they run.

    x @ W + b = cast((x_q - z_x) @ W_q) * (s_x s_W) + b, where x_q, s_x and z_x come from one
    dynamic_quantize_linear for all readers of x in a graph, and W_q has 8 bits per output channel.
    onnxruntime makes DynamicQuantizeMatMul of the spelling of a MatMul or Gemm. A Conv is a
    conv_integer with u8 weights, an LSTM a dynamic_quantize_lstm. Nested graphs are reached, too.
    Other ops of the mode stay float.
    """

    name = "quantize-dynamic"

    target: str = "ort-cpu"

    def run(self, graph: Graph, ctx: PassContext) -> int:
        work, target = _Laying(), target_named(self.target)
        planned = [n for n in graph.walk() if n.mode == "DYN8"]
        changes = 0
        for node in planned:
            refusal = dynamic_refusal(node, target)
            if refusal is None:
                work.lay(node)
                changes += 1
            else:
                ctx.decline("dynamic", node, refusal)
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


@dataclass
class _Laying:
    """``casts`` are the quantized forms of values in each graph that reads them, ``stored`` the
    integers and scales of weights by the form that they have, ``zeros`` the zero points of several
    scales by their shape: weights may be shared.
    """

    casts: dict[tuple[Value, Graph], Node[Any]] = field(default_factory=dict)
    stored: dict[tuple[Constant, str], tuple[Constant, Constant]] = field(default_factory=dict)
    zeros: dict[tuple[int, ...], Constant] = field(default_factory=dict)

    def lay(self, node: Node[Any]) -> None:
        if isinstance(node.op, LSTM):
            self._lay_lstm(node, node.op)
        else:
            self._lay_product(node)

    def _lay_product(self, node: Node[Any]) -> None:
        x = node.at(0)
        assert x is not None
        splice = Splice(node)
        place = x, node.graph
        if place not in self.casts:
            self.casts[place] = splice.node_of(DynamicQuantizeLinear(), x)
        stored, x_scale, x_zero = self.casts[place].present_results
        if isinstance(node.op, Conv):
            sums, scales, bias = self._convolved(node, splice, stored, x_zero)
        else:
            sums, scales, bias = self._multiplied(node, splice, stored, x_zero)
        scale = splice.op(Mul(), x_scale, scales)
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

    def _multiplied(
        self, node: Node[Any], splice: Splice, stored: Value, zero: Value
    ) -> tuple[Value, Value, Value | None]:
        """The sums of a matrix product in i32, the weight's scale per column, and the bias."""
        turned = isinstance(node.op, Gemm) and node.op.trans_b
        integers, scale = self._weight(node, 1, "rows" if turned else "columns")
        return splice.op(MatMulInteger(), stored, integers, zero), scale, node.at(2)

    def _convolved(
        self, node: Node[Any], splice: Splice, stored: Value, zero: Value
    ) -> tuple[Value, Value, Value | None]:
        """The sums of a convolution in i32, the weight's scale per channel, and the bias."""
        op, bias = node.op, node.operand("bias")
        integers, scale = self._weight(node, 1, "channels")
        conv = ConvInteger(
            pads=op.pads,
            strides=op.strides,
            dilations=op.dilations,
            group=op.group,
            auto_pad=op.auto_pad,
        )
        middle = splice.constant(np.array(_MIDDLE, np.uint8), "zero")
        if isinstance(bias, Constant):
            bias = splice.constant(_spread(bias.data.array(), len(integers.data.shape)), "bias")
        return splice.op(conv, stored, integers, zero, middle), scale, bias

    def _lay_lstm(self, node: Node[Any], op: LSTM) -> None:
        """The op itself takes the integers; its results keep their places and names."""
        (w, w_scale), (r, r_scale) = (self._weight(node, i, "stack") for i in node.traits.stored)
        shape = w_scale.data.shape
        zero = self.zeros.get(shape) or Splice(node).constant(np.zeros(shape, np.int8), "zero")
        self.zeros[shape] = zero
        others = [node.at(i) for i in range(3, len(op.operands))]
        attributes = {f.name: getattr(op, f.name) for f in fields(DynamicQuantizeLSTM)}
        node.op = DynamicQuantizeLSTM(**attributes)
        node.set_operands([node.at(0), w, r, *others, w_scale, zero, r_scale, zero])
        node.mode = "F32"

    def _weight(self, node: Node[Any], index: int, form: str) -> tuple[Constant, Constant]:
        """A weight as the kernel has it, and its scales."""
        weight = node.at(index)
        assert isinstance(weight, Constant)
        known = self.stored.get((weight, form))
        if known is None:
            array, scale = _FORMS[form](weight)
            data = Data.of(np.ascontiguousarray(array))
            known = (
                _constant(weight, data, data.elem.text),
                _constant(weight, Data.of(np.asarray(scale)), "scale"),
            )
            self.stored[weight, form] = known
        return known


def _constant(weight: Constant, data: Data, label: str) -> Constant:
    module = weight.module
    return module.add_constant(module.fresh_name(f"{weight.name}_{label}"), data)


def _spread(array: Array, rank: int) -> Array:
    """Numbers of channels, shaped to broadcast over images; one number of all as it is."""
    return array.reshape((1, -1, *[1] * (rank - 2)) if array.ndim else ())


def _integers(weight: Constant, axis: int) -> tuple[Array, Array]:
    """Integers of 8 bits and their scales along ``axis``, those that the weight has if it can."""
    quant = weight.tensor.quant
    symmetric = quant is not None and not quant.zero_point.any()
    if quant is not None and symmetric and quant.axis in (None, axis) and weight.elem is Elem.I8:
        return weight.data.array(), quant.scale
    array = numbers(weight)
    quant = weight_quant(array, axis, Elem.I8.limits[1])
    return quantize(array, quant, Elem.I8, narrow=True), quant.scale


def _turned(weight: Constant) -> tuple[Array, Array]:
    array, scale = _integers(weight, 0)
    return array.T, scale


def _around_middle(weight: Constant) -> tuple[Array, Array]:
    array, scale = _integers(weight, 0)
    integers = (array.astype(np.int16) + _MIDDLE).astype(np.uint8)
    return integers, _spread(scale, array.ndim)


def _stack(weight: Constant) -> tuple[Array, Array]:
    """Matrices [D, out, in] turned, as onnxruntime's LSTM multiplies by them; scales [D, out]."""
    array, quant = numbers(weight), weight.tensor.quant
    fitted = row_quant(array, Elem.I8.limits[1])
    layout = (fitted.axis, fitted.block)
    kept = quant is not None and (quant.axis, quant.block) == layout and weight.elem is Elem.I8
    if quant is not None and kept and not quant.zero_point.any():
        integers = weight.data.array()
    else:
        quant = fitted
        integers = quantize(array, fitted, Elem.I8, narrow=True)
    return integers.transpose(0, 2, 1), quant.scale.reshape(array.shape[:2])


_FORMS: dict[str, Callable[[Constant], tuple[Array, Array]]] = {
    "columns": lambda weight: _integers(weight, 1),
    "rows": _turned,
    "channels": _around_middle,
    "stack": _stack,
}
"""How kernels have weights: integers, and scales of output channels as they multiply by them."""
