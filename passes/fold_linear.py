"""fold-linear: constants that scale or shift a product move into its weight and bias."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.op import Kind
from qdqc.ir.types import Array, Elem
from qdqc.ops import Add, Conv, ConvTranspose, Gemm, MatMul, Mul
from qdqc.rewrite.pattern import PatternPass, Result, Rewriter, rewrites

__all__ = ["FoldLinear"]

_FLOATS = (Elem.F32, Elem.F16, Elem.F64)
_BIAS = 2
"""Where convolutions, Gemm and MatMul have their bias."""


class FoldLinear(PatternPass):
    """Fold constant factors and summands into weights and biases, and into each other."""

    name = "fold-linear"

    @rewrites(Mul)
    def scale(self, node: Node[Mul], rw: Rewriter) -> Result:
        """conv(x, W, b) * c = conv(x, W * c, b * c), with a factor for each output channel."""
        product = _product(node, rw)
        if product is None:
            return None
        made, constant = product
        weight = rw.array(made.need(made.op.operand_specs[1].name))
        factor = _per_channel(node, made, rw.array(constant))
        bias = made.at(_BIAS)
        offsets = rw.array(bias)
        if weight is None or (bias is not None and offsets is None):
            return rw.no("its weight or bias is not a known constant", made.result)
        if len(made.operands[1].uses) > 1:  # type: ignore[union-attr] - it is a constant
            return rw.no("other nodes read the weight too", made.operands[1])
        traits = made.traits
        if traits.kind is not Kind.WEIGHTED or (
            isinstance(made.op, ConvTranspose) and made.op.group != 1
        ):
            return rw.no("the output channels are not an axis of the weight", made.result)
        if factor is None:
            return rw.no("the factor is not one number per output channel", constant)
        shape = [1] * weight.ndim
        shape[traits.axis or 0] = -1
        wide = weight.astype(np.float64)
        name = made.operands[1].name  # type: ignore[union-attr] - it is a constant
        operands = [
            made.operands[0],
            _constant(rw, wide * factor.reshape(shape), f"{name}_scaled", node),
        ]
        if offsets is not None:
            scaled = offsets.astype(np.float64) * factor
            operands.append(_constant(rw, scaled, f"{node.name}_bias", node))
        return rw.op(replace(made.op, clamp=node.op.clamp), *operands)

    @rewrites(Add)
    def shift(self, node: Node[Add], rw: Rewriter) -> Result:
        """conv(x, W, b) + c = conv(x, W, b + c), with a summand for each output channel."""
        product = _product(node, rw)
        if product is None:
            return None
        made, constant = product
        bias = made.at(_BIAS)
        offsets = rw.array(bias)
        if bias is not None and offsets is None:
            return rw.no("its bias is not a known constant", bias)
        if isinstance(made.op, MatMul) and bias is None:
            return rw.no("'canonicalize' gives a matrix product its bias", made.result)
        if isinstance(made.op, Gemm) and made.op.beta != 1:
            return rw.no("beta is not 1", made.result)
        summand = _per_channel(node, made, rw.array(constant))
        if summand is None:
            return rw.no("the summand is not one number per output channel", constant)
        total = summand if offsets is None else offsets.astype(np.float64) + summand
        operands = [*made.operands[:_BIAS], _constant(rw, total, f"{node.name}_bias", node)]
        return rw.op(replace(made.op, clamp=node.op.clamp), *operands)

    @rewrites(Add, Mul)
    def merge(self, node: Node[Any], rw: Rewriter) -> Result:
        """(x + c) + d = x + (c + d); (x * c) * d = x * (c * d)."""
        value, second = _sides(node)
        inner = value.producer
        later = rw.array(second)
        if later is None:
            return rw.no("no operand is a known constant", second)
        if inner is None or type(inner.op) is not type(node.op):
            return rw.no("its operand is not such a sum or product", value)
        if inner.op.clamp is not None or inner.mode != node.mode:
            return rw.no("an activation or another precision stands between", value)
        if not rw.only_use(value):
            return rw.no("the inner value is read elsewhere too", value)
        x, first = _sides(inner)
        earlier = rw.array(first)
        if earlier is None or isinstance(x, Constant):
            return rw.no("the inner node has no known constant", first)
        elem = value.tensor.elem
        if not elem.is_integer and elem not in _FLOATS:
            return rw.no("it is not of numbers", value)
        try:
            size = np.broadcast(earlier, later).size
        except ValueError:
            return rw.no("the constants do not broadcast against each other", second)
        if size > max(earlier.size, later.size):
            return rw.no("the constants together are larger than each", second)
        wide = elem.dtype if elem.is_integer else np.dtype(np.float64)
        both: list[Any] = [earlier.astype(wide), later.astype(wide)]
        with np.errstate(over="ignore"):
            joined = both[0] + both[1] if isinstance(node.op, Add) else both[0] * both[1]
            narrow = joined.astype(elem.dtype)
        if not elem.is_integer and not np.isfinite(narrow).all():
            return rw.no("the constants together are not finite numbers", second)
        return rw.op(node.op, x, _constant(rw, narrow, f"{second.name}_merged", node))


def _sides(node: Node[Any]) -> tuple[Value, Value]:
    """The value and the constant of a node; the operands as they stand where none is one."""
    a, b = node.need("a"), node.need("b")
    return (b, a) if isinstance(a, Constant) else (a, b)


def _product(node: Node[Any], rw: Rewriter) -> tuple[Node[Any], Value] | None:
    """The convolution or product that a node scales or shifts for itself alone."""
    value, constant = _sides(node)
    made = value.producer
    if made is None or not isinstance(made.op, Conv | ConvTranspose | Gemm | MatMul):
        return rw.no("it scales or shifts no convolution or matrix product", value)
    array = rw.array(constant)
    if array is None or constant.tensor.elem not in _FLOATS:
        return rw.no("the other operand is not a known constant", constant)
    if np.isinf(array).any():
        return rw.no("the other operand holds infinity, as a mask does", constant)
    if made.op.clamp is not None or made.mode != node.mode:
        return rw.no("an activation or another precision stands between", value)
    if not rw.only_use(value):
        return rw.no("the product is read elsewhere too", value)
    if not isinstance(made.operands[1], Constant):
        return rw.no("its weight is not a constant", made.operands[1])
    return made, constant


def _per_channel(
    node: Node[Any], made: Node[Any], array: Array | None
) -> npt.NDArray[np.float64] | None:
    """A constant as one number for each output channel; None where it varies otherwise."""
    shape = node.result.tensor.shape
    if array is None or shape is None or made.result.tensor.rank != len(shape):
        return None
    axis = 1 if isinstance(made.op, Conv | ConvTranspose) else len(shape) - 1
    channels = made.result.tensor.shape[axis] if made.result.tensor.shape else None
    if not isinstance(channels, int) or array.ndim > len(shape):
        return None
    padded = array.reshape((1,) * (len(shape) - array.ndim) + array.shape)
    others = [d for i, d in enumerate(padded.shape) if i != axis]
    if any(d != 1 for d in others) or padded.shape[axis] not in (1, channels):
        return None
    return np.broadcast_to(padded.reshape(-1).astype(np.float64), (channels,))


def _constant(rw: Rewriter, array: Array, name: str, node: Node[Any]) -> Constant:
    elem = node.result.tensor.elem
    return rw.constant(np.asarray(array, order="C").astype(elem.dtype), name, elem)
