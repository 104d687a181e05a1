"""raise-normalization: normalizations that are spelt as means and roots become one node."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.types import Array, Elem
from qdqc.ops import (
    Add,
    Div,
    GroupNormalization,
    InstanceNormalization,
    LayerNormalization,
    Mul,
    Pow,
    Reciprocal,
    ReduceMean,
    Reshape,
    RMSNormalization,
    Sqrt,
    Sub,
)
from qdqc.rewrite.algebra import Algebra
from qdqc.rewrite.pattern import PatternPass, Result, Rewriter, rewrites

__all__ = ["RaiseNormalization"]

_FLOATS = (Elem.F32, Elem.F16)


@dataclass(frozen=True)
class _Scaled:
    """over / sqrt(mean(square over axes) + epsilon); ``chain`` are the nodes between."""

    over: Value
    axes: tuple[int, ...]
    epsilon: float
    chain: tuple[Node[Any], ...]


class RaiseNormalization(PatternPass):
    """Make one op of the nodes that spell layer, RMS, instance and group normalization."""

    name = "raise-normalization"

    @rewrites(Div, Mul)
    def moments(self, node: Node[Any], rw: Rewriter) -> Result:
        """d / sqrt(mean(d^2) + e) with d = x - mean(x) = layer_normalization(x, 1){axis, e};
        over all spatial axes of rank 4 or more it is instance_normalization(x, 1, 0).
        """
        scaled = _scaled(node, rw)
        if scaled is None:
            return rw.no("it is not a value over the root of a mean of squares")
        centred = scaled.over.producer
        if centred is None or not isinstance(centred.op, Sub):
            return rw.no("no mean is taken off", scaled.over)
        x, mean = centred.need("a"), centred.need("b").producer
        if mean is None or not isinstance(mean.op, ReduceMean) or mean.need("x") is not x:
            return rw.no("what is taken off is not the mean", centred.need("b"))
        if not mean.op.keepdims or _axes(mean) != scaled.axes:
            return rw.no("the mean is over other axes", mean.result)
        stray = _read_elsewhere(node, (*scaled.chain, centred, mean))
        if stray is not None:
            return rw.no("a value of the chain is read elsewhere too", stray)
        shape = x.tensor.shape
        assert shape is not None
        if scaled.axes != tuple(range(scaled.axes[0], len(shape))):
            return rw.no("its axes are not the last ones", x)
        if len(shape) > 3 and scaled.axes[0] == 2:
            if not isinstance(shape[1], int):
                return rw.no("the number of channels is unknown", x)
            scale, bias = _numbers(rw, x, (shape[1],), 1.0), _numbers(rw, x, (shape[1],), 0.0)
            return rw.op(InstanceNormalization(epsilon=scaled.epsilon), x, scale, bias)
        sizes = [d for d in shape[scaled.axes[0] :] if isinstance(d, int)]
        if len(sizes) != len(scaled.axes):
            return rw.no("the normalized size is unknown", x)
        op = LayerNormalization(axis=scaled.axes[0] - len(shape), epsilon=scaled.epsilon)
        return rw.op(op, x, _numbers(rw, x, tuple(sizes), 1.0))

    @rewrites(Div, Mul)
    def mean_square(self, node: Node[Any], rw: Rewriter) -> Result:
        """x / sqrt(mean(x^2) + e) = rms_normalization(x, 1){axis, e}."""
        scaled = _scaled(node, rw)
        if scaled is None:
            return rw.no("it is not a value over the root of a mean of squares")
        x, shape = scaled.over, scaled.over.tensor.shape
        if x.producer is not None and isinstance(x.producer.op, Sub):
            return rw.no("a mean may have been taken off", x)
        stray = _read_elsewhere(node, scaled.chain)
        if stray is not None:
            return rw.no("a value of the chain is read elsewhere too", stray)
        assert shape is not None
        if scaled.axes != tuple(range(scaled.axes[0], len(shape))):
            return rw.no("its axes are not the last ones", x)
        sizes = [d for d in shape[scaled.axes[0] :] if isinstance(d, int)]
        if len(sizes) != len(scaled.axes):
            return rw.no("the normalized size is unknown", x)
        op = RMSNormalization(axis=scaled.axes[0] - len(shape), epsilon=scaled.epsilon)
        return rw.op(op, x, _numbers(rw, x, tuple(sizes), 1.0))

    @rewrites(Reshape)
    def groups(self, node: Node[Reshape], rw: Rewriter) -> Result:
        """reshape(instance_normalization(reshape(x, [N,G,...]), 1, 0)) = group_normalization(x)."""
        normal = node.need("x").producer
        if normal is None or not isinstance(normal.op, InstanceNormalization):
            return rw.no("its operand is not an instance normalization", node.need("x"))
        split = normal.need("x").producer
        if split is None or not isinstance(split.op, Reshape):
            return rw.no("what is normalized is not a reshape", normal.need("x"))
        stray = _read_elsewhere(node, (normal, split))
        if stray is not None:
            return rw.no("a value of the chain is read elsewhere too", stray)
        x = split.need("x")
        whole, parts = x.tensor.shape, split.result.tensor.shape
        if whole is None or parts is None or whole != node.result.tensor.shape or None in whole:
            return rw.no("the shape that comes out is not known to be the one that went in", x)
        channels, groups = (s[1] if len(s) > 1 else None for s in (whole, parts))
        if not isinstance(channels, int) or not isinstance(groups, int) or channels % groups:
            return rw.no("the channels do not make the groups", x)
        if len(whole) < 3 or parts[0] != whole[0]:
            return rw.no("the groups are not of channels", split.result)
        scale, bias = rw.array(normal.need("scale")), rw.array(normal.need("bias"))
        if scale is None or bias is None:
            return rw.no("its scale and bias are not known constants", normal.result)
        each = channels // groups
        op = GroupNormalization(num_groups=groups, epsilon=normal.op.epsilon)
        made = [np.repeat(a, each) for a in (scale, bias)]
        constants = [rw.constant(a, f"{node.name}_{n}", x.tensor.elem) for a, n in zip(
            made, ("scale", "bias"), strict=True
        )]  # fmt: skip
        return rw.op(op, x, *constants)

    @rewrites(Mul)
    def scale(self, node: Node[Mul], rw: Rewriter) -> Result:
        """normalization(x, g, b) * c = normalization(x, g * c, b * c)."""
        return _merge(node, rw, lambda g, b, c: (g * c, None if b is None else b * c))

    @rewrites(Add)
    def shift(self, node: Node[Add], rw: Rewriter) -> Result:
        """normalization(x, g, b) + c = normalization(x, g, b + c)."""
        return _merge(node, rw, lambda g, b, c: (g, c if b is None else b + c))


def _scaled(node: Node[Any], rw: Rewriter) -> _Scaled | None:
    """A product with the inverse root, or a quotient by the root, of a mean of squares."""
    clamp = node.op.clamp
    if clamp is not None or node.result.tensor.elem not in _FLOATS:
        return None
    if isinstance(node.op, Div):
        return _over_root(node.need("a"), node.need("b").producer, (), rw)
    for over, factor in ((0, 1), (1, 0)):
        value, inverse = node.operands[over], node.operands[factor]
        made = None if inverse is None else inverse.producer
        if value is None or made is None:
            continue
        if isinstance(made.op, Reciprocal):
            scaled = _over_root(value, made.need("x").producer, (made,), rw)
        elif isinstance(made.op, Div) and Algebra(rw).number(made.need("a")) == 1:
            scaled = _over_root(value, made.need("b").producer, (made,), rw)
        elif isinstance(made.op, Pow) and Algebra(rw).number(made.operands[1]) == -0.5:
            scaled = _over_sum(value, made.operands[0], (made,), rw)
        else:
            continue
        if scaled is not None:
            return scaled
    return None


def _over_root(
    over: Value, root: Node[Any] | None, chain: tuple[Node[Any], ...], rw: Rewriter
) -> _Scaled | None:
    if root is not None and isinstance(root.op, Pow):
        is_root = Algebra(rw).number(root.operands[1]) == 0.5
    else:
        is_root = root is not None and isinstance(root.op, Sqrt)
    return _over_sum(over, root.operands[0], (*chain, root), rw) if is_root and root else None


def _over_sum(
    over: Value, total: Value | None, chain: tuple[Node[Any], ...], rw: Rewriter
) -> _Scaled | None:
    """mean(over^2) + epsilon below the root."""
    add = None if total is None else total.producer
    if add is None or not isinstance(add.op, Add) or add.op.clamp is not None:
        return None
    algebra, a, b = Algebra(rw), add.need("a"), add.need("b")
    mean, epsilon = (a, algebra.number(b)) if algebra.number(a) is None else (b, algebra.number(a))
    reduce = mean.producer
    if epsilon is None or reduce is None or not isinstance(reduce.op, ReduceMean):
        return None
    square = reduce.need("x").producer
    axes = _axes(reduce)
    if square is None or not reduce.op.keepdims or not axes:
        return None
    two = algebra.number(square.operands[1]) if isinstance(square.op, Pow) else None
    squared = isinstance(square.op, Mul) and square.op.clamp is None
    same = squared and square.operands[0] is square.operands[1]
    if square.operands[0] is not over or not (two == 2 or same):
        return None
    return _Scaled(over, axes, epsilon, (*chain, add, reduce, square))


def _axes(node: Node[ReduceMean]) -> tuple[int, ...]:
    """The axes of a mean, counted from the front; none where rank or axes are unknown."""
    rank = node.need("x").tensor.rank
    if rank is None or node.operand("computed_axes") is not None:
        return ()
    if not node.op.axes:
        return () if node.op.noop_with_empty_axes else tuple(range(rank))
    return tuple(sorted(a % rank for a in node.op.axes))


def _read_elsewhere(root: Node[Any], chain: tuple[Node[Any], ...]) -> Value | None:
    """A result of the chain that something besides the chain reads, or that is not the root's."""
    members = {root, *chain}
    for node in chain:
        value = node.result
        apart = node.graph is not root.graph or node.mode != root.mode
        if apart or value.is_output or not set(value.users) <= members:
            return value
    return None


def _numbers(rw: Rewriter, x: Value, shape: tuple[int, ...], fill: float) -> Constant:
    label = "scale" if fill else "bias"
    array = np.full(shape, fill, x.tensor.elem.dtype)
    return rw.constant(array, f"{rw.root.name}_{label}", x.tensor.elem)


def _merge(node: Node[Any], rw: Rewriter, combine: Any) -> Result:
    """A constant behind a normalization moves into its scale and bias."""
    a, b = node.need("a"), node.need("b")
    value, other = (a, b) if isinstance(b, Constant) else (b, a)
    normal, factor = value.producer, rw.array(other)
    kinds = LayerNormalization | RMSNormalization | InstanceNormalization | GroupNormalization
    if normal is None or not isinstance(normal.op, kinds) or factor is None:
        return rw.no("it is not a normalization with a constant", value)
    if isinstance(normal.op, RMSNormalization) and isinstance(node.op, Add):
        return rw.no("rms_normalization has no bias", value)
    if node.op.clamp is not None or normal.mode != node.mode:
        return rw.no("it has an activation or a precision of its own", value)
    if not rw.only_use(value) or any(r is not None for r in normal.results[1:]):
        return rw.no("the normalization is read elsewhere too", value)
    if value.tensor.elem not in _FLOATS or other.tensor.elem is not value.tensor.elem:
        return rw.no("it is not of floats", value)
    scale = rw.array(normal.need("scale"))
    operand = normal.operands[2] if len(normal.operands) > 2 else None
    bias = rw.array(operand)
    if scale is None or (operand is not None and bias is None):
        return rw.no("its scale and bias are not known constants", value)
    fitted = _fitted(factor, scale.shape, value, normal)
    if fitted is None:
        return rw.no("the constant has another shape than the scale", other)
    wide = [None if x is None else x.astype(np.float64) for x in (scale, bias, fitted)]
    new_scale, new_bias = combine(*wide)
    elem = value.tensor.elem
    operands: list[Value] = [rw.constant(_cast(new_scale, elem), f"{node.name}_scale", elem)]
    if new_bias is not None:
        operands.append(rw.constant(_cast(new_bias, elem), f"{node.name}_bias", elem))
    return rw.op(replace(normal.op), normal.need("x"), *operands)


def _cast(array: Any, elem: Elem) -> Array:
    converted: Array = np.asarray(array, order="C").astype(elem.dtype)
    return converted


def _fitted(factor: Array, shape: tuple[int, ...], value: Value, normal: Node[Any]) -> Array | None:
    """A constant in the shape of the scale; None where it does not vary as the scale does."""
    rank = value.tensor.rank
    if rank is None or factor.ndim > rank:
        return None
    if factor.size == 1:
        return np.broadcast_to(factor.reshape(()), shape)
    padded = factor.reshape((1,) * (rank - factor.ndim) + factor.shape)
    if isinstance(normal.op, LayerNormalization | RMSNormalization):
        lead = rank - len(shape)
        if any(d != 1 for d in padded.shape[:lead]):
            return None
        inner = padded.reshape(padded.shape[lead:])
        fits = all(d in (1, s) for d, s in zip(inner.shape, shape, strict=True))
        return np.broadcast_to(inner, shape) if fits else None
    others = (*padded.shape[:1], *padded.shape[2:])
    return padded.reshape(-1) if all(d == 1 for d in others) and padded.size == shape[0] else None
