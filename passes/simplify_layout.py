"""simplify-layout: chains of nodes that only move or rename dimensions become one, or none."""

from __future__ import annotations

from typing import Any

import numpy as np

from qdqc.ir.core import Node
from qdqc.ir.types import Elem
from qdqc.ops import Expand, Flatten, Reshape, Squeeze, Tile, Transpose, Unsqueeze
from qdqc.rewrite.layout import inferred_shape, reshape_target, same_shape
from qdqc.rewrite.pattern import PatternPass, Result, Rewriter, rewrites

__all__ = ["SimplifyLayout"]


class SimplifyLayout(PatternPass):
    """Join transposes, reshapes, squeezes and unsqueezes, and drop those that do nothing."""

    name = "simplify-layout"

    @rewrites(Transpose)
    def transpose(self, node: Node[Transpose], rw: Rewriter) -> Result:
        """transpose(transpose(x, p), q) = transpose(x, p[q]); the identity goes."""
        x = node.need("x")
        perm = _perm(node)
        if perm is None:
            return rw.no("the rank is unknown", x)
        if perm == tuple(range(len(perm))):
            return x
        producer = x.producer
        if producer is None or not isinstance(producer.op, Transpose):
            return rw.no("its producer is not a transpose", x)
        first = _perm(producer)
        if first is None:
            return rw.no("the rank is unknown", x)
        return rw.op(Transpose(perm=tuple(first[i] for i in perm)), producer.need("x"))

    @rewrites(Transpose)
    def moves_ones(self, node: Node[Transpose], rw: Rewriter) -> Result:
        """A transpose that only moves dimensions of size 1 is a reshape."""
        x, perm = node.need("x"), _perm(node)
        shape, wanted = x.tensor.shape, inferred_shape(node)
        if perm is None or shape is None or wanted is None:
            return rw.no("the shape is unknown", x)
        if perm == tuple(range(len(perm))):
            return rw.no("it moves nothing")
        wide = [i for i in perm if shape[i] != 1]
        if wide != sorted(wide):
            return rw.no("it moves dimensions other than 1", x)
        target = reshape_target(wanted, shape, False)
        if target is None:
            return rw.no("two dimensions of the result are unknown", node.result)
        return rw.op(Reshape(), x, _shape(rw, target))

    @rewrites(Reshape)
    def reshape(self, node: Node[Reshape], rw: Rewriter) -> Result:
        """reshape(reshape(x)) = reshape(x); one that keeps the shape goes."""
        x = node.need("x")
        if same_shape(x, node.result):
            return x
        producer = x.producer
        if producer is None or not producer.op.keeps_order:
            return rw.no("its producer does not reshape", x)
        source, wanted = producer.need("x"), inferred_shape(node)
        target = rw.array(node.need("shape"))
        if target is not None and not node.op.allowzero and not (target == 0).any():
            return rw.op(node.op, source, node.need("shape"))
        numbers = None
        if wanted is not None and None not in wanted and 0 not in wanted:
            numbers = reshape_target(wanted, source.tensor.shape, False)
        if numbers is None:
            return rw.no("the target does not follow from the operand before", source)
        return rw.op(Reshape(), source, _shape(rw, numbers))

    @rewrites(Squeeze, Unsqueeze, Flatten, Expand, Tile)
    def keeps_shape(self, node: Node[Any], rw: Rewriter) -> Result:
        """One that leaves the shape as it is goes."""
        x = node.need("x")
        shape = x.tensor.shape
        if shape is None or None in shape or shape != inferred_shape(node):
            return rw.no("it changes the shape", x)
        return x

    @rewrites(Unsqueeze)
    def unsqueeze(self, node: Node[Unsqueeze], rw: Rewriter) -> Result:
        """unsqueeze(unsqueeze(x, a), b) = unsqueeze(x, b and a where b leaves it)."""
        x = node.need("x")
        inner, rank = x.producer, x.tensor.rank
        if inner is None or not isinstance(inner.op, Unsqueeze):
            return rw.no("its producer is not an unsqueeze", x)
        if rank is None:
            return rw.no("the rank is unknown", x)
        outer = {a % (rank + len(node.op.axes)) for a in node.op.axes}
        places = [i for i in range(rank + len(outer)) if i not in outer]
        moved = {places[a % rank] for a in inner.op.axes}
        return rw.op(Unsqueeze(axes=tuple(sorted(outer | moved))), inner.need("x"))

    @rewrites(Squeeze)
    def squeeze(self, node: Node[Squeeze], rw: Rewriter) -> Result:
        """squeeze(squeeze(x, a), b) = squeeze(x, a and b); squeeze(unsqueeze(x, a), a) = x."""
        x = node.need("x")
        inner, rank = x.producer, x.tensor.rank
        if inner is None or not isinstance(inner.op, Squeeze | Unsqueeze):
            return rw.no("its producer is not a squeeze or unsqueeze", x)
        if rank is None or not node.op.axes or not inner.op.axes:
            return rw.no("the axes are unknown", x)
        outer = {a % rank for a in node.op.axes}
        if isinstance(inner.op, Unsqueeze):
            if outer != {a % rank for a in inner.op.axes}:
                return rw.no("it takes other axes than were put in", x)
            return inner.need("x")
        whole = rank + len(inner.op.axes)
        first = {a % whole for a in inner.op.axes}
        places = [i for i in range(whole) if i not in first]
        axes = sorted(first | {places[a] for a in outer})
        return rw.op(Squeeze(axes=tuple(axes)), inner.need("x"))


def _shape(rw: Rewriter, numbers: list[int]) -> Any:
    return rw.constant(np.array(numbers, np.int64), f"{rw.root.name}_shape", Elem.I64)


def _perm(node: Node[Transpose]) -> tuple[int, ...] | None:
    rank = node.need("x").tensor.rank
    if node.op.perm:
        return node.op.perm
    return None if rank is None else tuple(reversed(range(rank)))
