"""fold-linear: constants that scale or shift a product move into its weight and bias."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.op import Kind
from qdqc.ir.types import Array, Elem, Range
from qdqc.ops import (
    Add,
    Conv,
    ConvTranspose,
    Elu,
    Gelu,
    Gemm,
    HardSwish,
    LeakyRelu,
    MatMul,
    Mish,
    Mul,
    Relu,
    Selu,
    Softsign,
    Swish,
    Tanh,
)
from qdqc.rewrite.pattern import PatternPass, Result, Rewriter, rewrites

__all__ = ["FoldLinear"]

_FLOATS = (Elem.F32, Elem.F16, Elem.F64)
_BIAS = 2
"""Where convolutions, Gemm and MatMul have their bias."""

_ABOUT_ZERO = (Elu, Gelu, HardSwish, LeakyRelu, Mish, Relu, Selu, Softsign, Swish, Tanh)
"""Activations with f(0) = 0. Integers hold zero: they would be coarse for numbers far from it."""


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

    @rewrites(Conv, ConvTranspose, Gemm, MatMul)
    def operand(self, node: Node[Any], rw: Rewriter) -> Result:
        """conv(x * c + d, W, b) = conv(x + d / c, W * c, b), for numbers c and d; d may be 0."""
        read = node.operands[0]
        summed = _number(read, Add, node, rw)
        scaled = _number(read if summed is None else summed.value, Mul, node, rw)
        if scaled is None:
            return rw.no("what it reads is not scaled by one number", read)
        source = node.operands[1]
        weight = rw.array(source)
        if weight is None or source is None or node.traits.kind is not Kind.WEIGHTED:
            return rw.no("its weight is not a known constant", source)
        if len(source.uses) > 1:
            return rw.no("other nodes read the weight too", source)
        with np.errstate(all="ignore"):
            by = (weight.astype(np.float64) * scaled.number).astype(weight.dtype)
            ahead = np.float64(0.0 if summed is None else summed.number) / scaled.number
            fits = np.isfinite(ahead.astype(weight.dtype)) and np.isfinite(by).all()
        if scaled.number == 0 or not fits:
            return rw.no("the factor leaves no finite numbers", scaled.value)
        x = scaled.value
        if summed is not None:
            constant = _constant(
                rw, np.asarray(ahead), f"{summed.constant.name}_scaled", summed.node
            )
            x = rw.op(Add(), x, constant, name=f"{summed.node.name}_scaled")
            x.type = x.tensor.with_range(_over(summed.node.result.range, scaled.number))
        made = rw.constant(by, f"{source.name}_scaled", source.tensor.elem)
        return rw.op(node.op, x, made, *node.operands[2:])

    @rewrites(Conv, Gemm, MatMul)
    def offset(self, node: Node[Any], rw: Rewriter) -> Result:
        """conv(x + d, W, b) = conv(x, W, b + d sum(W)), for a number d and an activation x."""
        op = node.op
        summed = _number(node.operands[0], Add, node, rw)
        if summed is None:
            return rw.no("one number is not added to what it reads", node.operands[0])
        if isinstance(op, Conv) and (any(op.pads) or op.auto_pad not in ("NOTSET", "VALID")):
            return rw.no("zeros around it would be shifted as well", node.operands[0])
        if (isinstance(op, Gemm) and op.beta != 1) or (
            isinstance(op, MatMul) and node.at(_BIAS) is None
        ):
            return rw.no("it has no plain bias", node.result)
        source = summed.value.producer
        if source is None or not (isinstance(source.op, _ABOUT_ZERO) or source.op.clamp):
            return rw.no("no activation precedes: numbers may be far from zero", summed.value)
        weight, bias = rw.array(node.operands[1]), node.at(_BIAS)
        offsets = rw.array(bias)
        traits = node.traits
        if weight is None or (bias is not None and offsets is None):
            return rw.no("its weight or bias is not a known constant", node.result)
        if traits.kind is not Kind.WEIGHTED:
            return rw.no("its numbers are not f32", node.result)
        others = tuple(i for i in range(weight.ndim) if i != traits.axis)
        shift = weight.sum(axis=others, dtype=np.float64) * summed.number * getattr(op, "alpha", 1)
        total = shift if offsets is None else offsets.astype(np.float64) + shift
        made = _constant(rw, total, f"{node.name}_bias", node)
        return rw.op(op, summed.value, node.operands[1], made)

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


@dataclass(frozen=True)
class _Number:
    """A node that adds a number to a value or multiplies it by one."""

    node: Node[Any]
    value: Value
    constant: Value
    number: float


def _number(
    read: Value | None, kind: type[Add | Mul], reader: Node[Any], rw: Rewriter
) -> _Number | None:
    """What makes a value of another and one number, for one reader of the same precision alone."""
    node = None if read is None else read.producer
    if read is None or node is None or not isinstance(node.op, kind) or node.op.clamp is not None:
        return None
    value, constant = _sides(node)
    array, rank = rw.array(constant), value.tensor.rank
    alone = len(read.uses) == 1 and not read.is_output and read.graph is reader.graph
    if not alone or node.mode != reader.mode or isinstance(value, Constant):
        return None
    if array is None or array.size != 1 or rank is None or array.ndim > rank:
        return None
    if constant.tensor.elem not in _FLOATS or not np.isfinite(array).all():
        return None
    return _Number(node, value, constant, float(array.reshape(())))


def _over(range_: Range | None, factor: float) -> Range | None:
    """The range of numbers divided by a factor."""
    if range_ is None:
        return None
    ends = (range_.min / factor, range_.max / factor)
    return Range(min(ends), max(ends), range_.threshold / abs(factor))


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
