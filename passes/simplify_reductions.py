"""simplify-reductions: a reduction with the dimensions that it leaves, and the op that it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from qdqc.ir.core import Node, Value
from qdqc.ir.op import OPS
from qdqc.ir.types import Elem
from qdqc.ops import (
    GlobalAveragePool,
    GlobalMaxPool,
    Mul,
    ReduceMax,
    ReduceMean,
    ReduceSum,
    Reshape,
    Squeeze,
    Transpose,
    Unsqueeze,
)
from qdqc.ops.reduce import Reduce
from qdqc.rewrite.layout import reshape_target
from qdqc.rewrite.pattern import PatternPass, Result, Rewriter, rewrites

__all__ = ["SimplifyReductions"]

_KEEPING = tuple(op for op in OPS if issubclass(op, Reduce) and op.keeps_one)


class SimplifyReductions(PatternPass):
    """Give reductions their shortest form; a mean over all pixels is a pooling."""

    name = "simplify-reductions"

    @rewrites(ReduceMean, ReduceMax)
    def pool(self, node: Node[Any], rw: Rewriter) -> Result:
        """reduce_mean(x){all spatial axes} = global_average_pool(x); so with the largest."""
        x = node.need("x")
        axes, rank = _axes(node), x.tensor.rank
        if axes is None or rank is None:
            return rw.no("its axes are unknown", x)
        if rank < 4 or axes != tuple(range(2, rank)):
            return rw.no("they are not the spatial axes of an image", x)
        if not node.op.keepdims:
            return rw.no("it drops the axes, and a pooling does not", x)
        if x.tensor.elem is not Elem.F32:
            return rw.no("it is not of float32", x)
        pooling = GlobalAveragePool() if isinstance(node.op, ReduceMean) else GlobalMaxPool()
        return rw.op(pooling, x)

    @rewrites(Squeeze)
    def squeezed(self, node: Node[Squeeze], rw: Rewriter) -> Result:
        """squeeze(reduce(x){a, keepdims}, a) = reduce(x){a}."""
        x = node.need("x")
        inner = x.producer
        if inner is None or not isinstance(inner.op, _KEEPING) or not rw.only_use(x):
            return rw.no("its producer is not a reduction that it alone reads", x)
        axes, rank = _axes(inner), x.tensor.rank
        if axes is None or rank is None or not inner.op.keepdims:
            return rw.no("the reduction keeps no axes", x)
        if not node.op.axes or {a % rank for a in node.op.axes} != set(axes):
            return rw.no("it takes out other axes than were reduced", x)
        return rw.op(replace(inner.op, axes=axes, keepdims=False), inner.need("x"))

    @rewrites(Unsqueeze)
    def kept(self, node: Node[Unsqueeze], rw: Rewriter) -> Result:
        """unsqueeze(reduce(x){a}, a) = reduce(x){a, keepdims}."""
        x = node.need("x")
        inner = x.producer
        if inner is None or not isinstance(inner.op, _KEEPING) or not rw.only_use(x):
            return rw.no("its producer is not a reduction that it alone reads", x)
        axes, rank = _axes(inner), inner.need("x").tensor.rank
        if axes is None or rank is None or inner.op.keepdims:
            return rw.no("the reduction keeps its axes", x)
        if {a % rank for a in node.op.axes} != set(axes) or len(node.op.axes) != len(axes):
            return rw.no("it puts in other axes than were reduced", x)
        return rw.op(replace(inner.op, axes=axes, keepdims=True), inner.need("x"))

    @rewrites(*_KEEPING)
    def ones(self, node: Node[Any], rw: Rewriter) -> Result:
        """reduce(x){axes of size 1} = x, reshaped where the axes go."""
        x, axes = node.need("x"), _axes(node)
        shape = x.tensor.shape
        if axes is None or shape is None:
            return rw.no("its axes are unknown", x)
        if any(shape[axis] != 1 for axis in axes):
            return rw.no("it reduces more than one element", x)
        if node.op.keepdims:
            return x
        return rw.op(Squeeze(axes=axes), x) if axes else x

    @rewrites(*_KEEPING)
    def transposed(self, node: Node[Any], rw: Rewriter) -> Result:
        """reduce(transpose(x, p)){a} = reduce(x){p[a]}, where the axes left keep their order."""
        x = node.need("x")
        inner, axes = x.producer, _axes(node)
        if inner is None or not isinstance(inner.op, Transpose) or axes is None:
            return rw.no("its producer is not a transpose", x)
        perm = inner.op.perm or tuple(reversed(range(x.tensor.rank or 0)))
        left = [p for i, p in enumerate(perm) if i not in axes]
        if left != sorted(left):
            return rw.no("the axes that are left change places", x)
        moved = tuple(sorted(perm[axis] for axis in axes))
        if not node.op.keepdims:
            return rw.op(replace(node.op, axes=moved), inner.need("x"))
        if moved != axes:
            return rw.no("the axes of size 1 change places", x)
        return rw.op(node.op, inner.need("x"))

    @rewrites(Mul)
    def mean(self, node: Node[Mul], rw: Rewriter) -> Result:
        """reduce_sum(x){a} * (1 / n) = reduce_mean(x){a}, where n elements are summed."""
        a, b = node.need("a"), node.need("b")
        total, factor = (a, b) if rw.array(a) is None else (b, a)
        number, inner = rw.array(factor), total.producer
        if number is None or number.size != 1 or number.ndim > (total.tensor.rank or 0):
            return rw.no("no operand is one constant number", factor)
        if inner is None or not isinstance(inner.op, ReduceSum) or not rw.only_use(total):
            return rw.no("no operand is a sum that it alone reads", total)
        x, axes = inner.need("x"), _axes(inner)
        if axes is None or x.tensor.shape is None or x.tensor.elem is not Elem.F32:
            return rw.no("how many are summed is unknown", total)
        sizes = [x.tensor.shape[axis] for axis in axes]
        count = float(np.prod([s if isinstance(s, int) else 0 for s in sizes]))
        if not count or np.float32(1 / count) != number.reshape(())[()]:
            return rw.no("the factor is not one over the number of summands", factor)
        if node.op.clamp is not None:
            return rw.no("it has an activation", total)
        return rw.op(ReduceMean(axes=axes, keepdims=inner.op.keepdims), x)

    @rewrites(ReduceMean)
    def pooled(self, node: Node[ReduceMean], rw: Rewriter) -> Result:
        """reduce_mean(x){all spatial axes, dropped} = reshape(global_average_pool(x))."""
        x = node.need("x")
        axes, shape = _axes(node), x.tensor.shape
        if node.op.keepdims or axes is None or shape is None or len(shape) < 4:
            return rw.no("it keeps its axes, or they are unknown", x)
        if axes != tuple(range(2, len(shape))) or x.tensor.elem is not Elem.F32:
            return rw.no("they are not the spatial axes of an image", x)
        target = reshape_target(shape[:2], shape, False)
        if target is None:
            return rw.no("the size of the result is unknown", x)
        means = rw.op(GlobalAveragePool(), x, name=f"{node.name}_pool")
        return rw.op(Reshape(), means, _shape(rw, target))


def _axes(node: Node[Any]) -> tuple[int, ...] | None:
    """The axes that a reduction reduces, sorted; None where they are computed or unknown."""
    rank = node.need("x").tensor.rank
    if rank is None or node.operand("computed_axes") is not None:
        return None
    if not node.op.axes:
        return () if node.op.noop_with_empty_axes else tuple(range(rank))
    return tuple(sorted(axis % rank for axis in node.op.axes))


def _shape(rw: Rewriter, numbers: list[int]) -> Value:
    return rw.constant(np.array(numbers, np.int64), f"{rw.root.name}_shape", Elem.I64)
