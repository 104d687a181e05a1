"""raise-dynamic: products whose scale the run finds become float products of integer weights."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.op import Op
from qdqc.ir.types import Array, Elem, Quant, TensorType
from qdqc.ops import Cast, Conv, ConvInteger, DynamicQuantizeLinear, MatMul, MatMulInteger, Mul
from qdqc.rewrite.pattern import PatternPass, Result, Rewriter, rewrites

__all__ = ["RaiseDynamic"]


class RaiseDynamic(PatternPass):
    """Read what quantize_dynamic of onnxruntime writes as a product of x and integer weights.

    cast(matmul_integer(q, W, z, z_W)) * (s s_W) = matmul(x, W (s_W, z_W)) where q, s and z are the
    dynamic_quantize_linear of x, and likewise for conv_integer. What the run would round of x is
    rounded no more, until ``quantize-dynamic`` or ``quantize`` lay it anew.
    """

    name = "raise-dynamic"

    @rewrites(Mul)
    def product(self, node: Node[Mul], rw: Rewriter) -> Result:
        """cast(matmul_integer(q, W, z, z_W)) * (s s_W) = matmul(x, W)."""
        sums, scale = _sums(node)
        if sums is None or scale is None or node.op.clamp is not None:
            return rw.no("it is no scaled sum of integer products")
        cast = sums.at(0)
        source = None if cast is None else cast.producer
        if source is None or not isinstance(source.op, DynamicQuantizeLinear):
            return rw.no("its operand takes no scale as it runs", cast)
        weight, (stored, x_scale, x_zero) = sums.at(1), source.present_results
        factor, zero = _other(scale, x_scale), sums.at(3)
        if not isinstance(weight, Constant) or cast is not stored or sums.at(2) is not x_zero:
            return rw.no("its weight is no constant, or its operand's zero point another", weight)
        axis = 0 if isinstance(sums.op, ConvInteger) else 1
        zeros = np.zeros((), np.uint8) if zero is None else rw.array(zero)
        typed = _typed(weight, rw.array(factor), zeros, axis)
        if typed is None:
            return rw.no("its weight has no constant scale per tensor or per channel", weight)
        return rw.op(_float_op(sums.op), source.need("x"), typed)


def _sums(node: Node[Mul]) -> tuple[Node[Any] | None, Node[Any] | None]:
    """The integer product behind a cast, and the product of scales; None for what is another."""
    for index in (0, 1):
        cast, scale = node.need("ab"[index]).producer, node.need("ab"[1 - index]).producer
        if cast is None or scale is None:
            continue
        if not isinstance(cast.op, Cast) or not isinstance(scale.op, Mul):
            continue
        sums = cast.need("x").producer
        if sums is not None and isinstance(sums.op, MatMulInteger | ConvInteger):
            return sums, scale
    return None, None


def _other(scale: Node[Any], x_scale: Value) -> Value | None:
    """What the scale of x is multiplied by."""
    a, b = scale.need("a"), scale.need("b")
    if x_scale not in (a, b):
        return None
    return b if a is x_scale else a


def _float_op(op: Op) -> Op:
    if isinstance(op, MatMulInteger):
        return MatMul()
    return Conv(**{f.name: getattr(op, f.name) for f in fields(op)})


def _typed(
    weight: Constant, scales: Array | None, zeros: Array | None, axis: int
) -> Constant | None:
    """The integer weight with its scale and zero point in its type.

    ``axis`` is that of the output channels, one scale for each of which broadcasts to the result.
    """
    shape, elem = weight.data.shape, weight.tensor.elem
    if scales is None or zeros is None or len(shape) < 2 or elem not in (Elem.I8, Elem.U8):
        return None
    if axis == 1 and len(shape) != 2:
        return None
    size, behind = shape[axis], len(shape) - 2 if axis == 0 else 0
    if scales.size not in (1, size) or zeros.size not in (1, size):
        return None
    if scales.size > 1 and scales.shape[::-1][behind : behind + 1] != (size,):
        return None
    per_axis = scales.size > 1 or zeros.size > 1
    flat = np.broadcast_to(scales.reshape(-1), size) if per_axis else scales.reshape(())
    zeros = zeros.reshape(()) if zeros.size == 1 else zeros.reshape(-1)
    quant = Quant.make(flat, zeros, axis if per_axis else None)
    module = weight.module
    name = module.fresh_name(f"{weight.name}_w")
    return module.add_constant(name, weight.data, TensorType(elem, weight.tensor.shape, quant))
