"""simplify-slices: cutting, picking, joining and padding that comes to less, or to nothing."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.types import Elem
from qdqc.ops import Concat, Gather, Pad, Slice, Split, Unsqueeze
from qdqc.rewrite.layout import inferred_shape
from qdqc.rewrite.pattern import PatternPass, Result, Rewriter, rewrites

__all__ = ["SimplifySlices"]

_END = 2**63 - 1
"""The end of an axis of any size."""

_FAR = 2**31 - 1
"""Exporters write the end of an axis as this or more."""

_Bounds = dict[int, tuple[int, int, int]]
"""Start, end and step along each axis that is cut; an open end is ``_END``."""


@dataclass(frozen=True)
class _Cut:
    """x[start:end] along one axis, counted from the front."""

    x: Value
    start: int
    end: int


class SimplifySlices(PatternPass):
    """Join slices, splits, gathers, concats and pads, and drop those that do nothing."""

    name = "simplify-slices"

    @rewrites(Slice)
    def whole(self, node: Node[Slice], rw: Rewriter) -> Result:
        """slice(x) = x, where it takes everything."""
        x, bounds = node.need("x"), _bounds(node, rw)
        if bounds is None:
            return rw.no("its bounds are not known constants", x)
        if any(step != 1 for _, _, step in bounds.values()):
            return rw.no("it takes steps", x)
        open_ended = all(start == 0 and end == _END for start, end, _ in bounds.values())
        shape = x.tensor.static_shape
        if not open_ended and (shape is None or shape != inferred_shape(node)):
            return rw.no("it leaves something out, or may", x)
        return x

    @rewrites(Slice)
    def slices(self, node: Node[Slice], rw: Rewriter) -> Result:
        """slice(slice(x, a), b) = slice(x, a and b), on other axes or both counted from 0 by 1."""
        x = node.need("x")
        inner = x.producer
        if inner is None or not isinstance(inner.op, Slice):
            return rw.no("its producer is not a slice", x)
        if not rw.only_use(x):
            return rw.no("the first slice is read elsewhere too", x)
        first, second = _bounds(inner, rw), _bounds(node, rw)
        if first is None or second is None:
            return rw.no("its bounds are not known constants", x)
        joined = dict(first)
        for axis, bound in second.items():
            outer = first.get(axis)
            if outer is None:
                joined[axis] = bound
            elif outer[2] != 1 or bound[2] != 1 or min(*outer, *bound) < 0:
                return rw.no(f"both cut axis {axis}, by steps or from its end", x)
            else:
                end = _END if bound[1] == _END else outer[0] + bound[1]
                joined[axis] = (outer[0] + bound[0], min(outer[1], end), 1)
        return _slice(rw, inner.need("x"), joined)

    @rewrites(Gather)
    def rows(self, node: Node[Gather], rw: Rewriter) -> Result:
        """gather(x, [i, i + 1, ..., j]) = slice(x, i, j + 1)."""
        x, indices = node.need("x"), rw.array(node.need("indices"))
        if indices is None or indices.ndim != 1 or not indices.size:
            return rw.no("its indices are not a constant list", node.need("indices"))
        if isinstance(x, Constant):
            return rw.no("it reads a table", x)
        numbers = [int(i) for i in indices]
        if numbers[0] < 0 or numbers != list(range(numbers[0], numbers[-1] + 1)):
            return rw.no("its indices are not consecutive", node.need("indices"))
        shape = x.tensor.shape
        size = None if shape is None else shape[node.op.axis]
        if shape is None or not isinstance(size, int):
            return rw.no("the size of the axis is unknown: a slice may come out shorter", x)
        bounds = {node.op.axis % len(shape): (numbers[0], numbers[-1] + 1, 1)}
        return _slice(rw, x, bounds)

    @rewrites(Gather)
    def put_in(self, node: Node[Gather], rw: Rewriter) -> Result:
        """gather(unsqueeze(x, a), 0){a} = x."""
        x, index = node.need("x"), rw.array(node.need("indices"))
        inner, rank = x.producer, x.tensor.rank
        if inner is None or not isinstance(inner.op, Unsqueeze) or rank is None:
            return rw.no("its producer is not an unsqueeze", x)
        if index is None or index.ndim or int(index) not in (0, -1):
            return rw.no("it does not pick the one index", node.need("indices"))
        if [axis % rank for axis in inner.op.axes] != [node.op.axis % rank]:
            return rw.no("it picks along another axis", x)
        return inner.need("x")

    @rewrites(Split)
    def one(self, node: Node[Split], rw: Rewriter) -> Result:
        """split(x) = x, where there is one part."""
        if len(node.results) != 1:
            return rw.no("it has several parts", node.need("x"))
        return node.need("x")

    @rewrites(Concat)
    def flatten(self, node: Node[Concat], rw: Rewriter) -> Result:
        """concat(a, concat(b, c)) = concat(a, b, c), and parts without elements go."""
        parts: list[Value] = []
        for part in node.present_operands:
            inner, rank = part.producer, part.tensor.rank
            nested = inner is not None and isinstance(inner.op, Concat) and rw.only_use(part)
            if inner and nested and rank and inner.op.axis % rank == node.op.axis % rank:
                parts += inner.present_operands
            elif not _is_empty(part, node.op.axis):
                parts.append(part)
        if not parts or parts == list(node.present_operands):
            return rw.no("no part is a concat of its own along the axis, none is empty")
        return rw.op(node.op, *parts)

    @rewrites(Concat)
    def cuts(self, node: Node[Concat], rw: Rewriter) -> Result:
        """concat(x[a:b], x[b:c]) = x[a:c], from slices or a split; where that is all of x, x."""
        first = node.present_operands[0]
        if first.tensor.rank is None:
            return rw.no("the rank is unknown", first)
        axis = node.op.axis % first.tensor.rank
        parts = [_cut(part, axis, rw) for part in node.present_operands]
        cuts = [cut for cut in parts if cut is not None]
        if len(cuts) < len(parts):
            return rw.no("not every part is cut along the axis by known numbers", first)
        for left, right in pairwise(cuts):
            if left.x is not right.x or left.end != right.start:
                return rw.no("the parts are not neighbours in one value", left.x)
        x, start, end = cuts[0].x, cuts[0].start, cuts[-1].end
        size = x.tensor.shape[axis] if x.tensor.shape else None
        if start == 0 and (end == _END or (isinstance(size, int) and end >= size)):
            return x
        return _slice(rw, x, {axis: (start, end, 1)})

    @rewrites(Pad)
    def nothing(self, node: Node[Pad], rw: Rewriter) -> Result:
        """pad(x, 0) = x."""
        amounts = rw.array(node.need("pads"))
        if amounts is None or amounts.any():
            return rw.no("it adds something, or may", node.need("pads"))
        return node.need("x")

    @rewrites(Pad)
    def pads(self, node: Node[Pad], rw: Rewriter) -> Result:
        """pad(pad(x, p, v), q, v) = pad(x, p + q, v)."""
        x = node.need("x")
        inner = x.producer
        if inner is None or not isinstance(inner.op, Pad) or not rw.only_use(x):
            return rw.no("its producer is not a pad that it alone reads", x)
        if {node.op.mode, inner.op.mode} != {"constant"}:
            return rw.no("one of them repeats elements", x)
        if node.operand("axes") is not None or inner.operand("axes") is not None:
            return rw.no("one of them names its axes", x)
        if not _same_fill(node, inner, rw):
            return rw.no("they add different values", x)
        p, q = rw.array(inner.need("pads")), rw.array(node.need("pads"))
        if p is None or q is None or min(p.min(initial=0), q.min(initial=0)) < 0:
            return rw.no("their amounts are not known constants, or one of them crops", x)
        total = rw.constant(np.add(p, q), f"{node.name}_pads", Elem.I64)
        return rw.op(node.op, inner.need("x"), total, node.operand("value"))


def _bounds(node: Node[Slice], rw: Rewriter) -> _Bounds | None:
    """What a slice takes along each axis; None where that is not known."""
    rank = node.need("x").tensor.rank
    starts, ends = rw.array(node.need("starts")), rw.array(node.need("ends"))
    if rank is None or starts is None or ends is None:
        return None
    count = len(starts)
    given: list[list[int]] = [starts.tolist(), ends.tolist()]
    for name, default in (("axes", list(range(count))), ("steps", [1] * count)):
        value = node.operand(name)
        array = rw.array(value)
        if value is not None and array is None:
            return None
        given.append(default if array is None else array.tolist())
    bounds: _Bounds = {}
    for start, end, axis, step in zip(*given, strict=True):
        bounds[axis % rank] = (start, _END if end >= _FAR and step > 0 else end, step)
    return bounds


def _slice(rw: Rewriter, x: Value, bounds: _Bounds) -> Value:
    axes = sorted(bounds)
    columns = [[bounds[axis][i] for axis in axes] for i in range(3)]
    named = {"starts": columns[0], "ends": columns[1], "axes": axes}
    if any(step != 1 for step in columns[2]):
        named["steps"] = columns[2]
    made = [
        rw.constant(np.array(numbers, np.int64), f"{rw.root.name}_{name}", Elem.I64)
        for name, numbers in named.items()
    ]
    return rw.op(Slice(), x, *made)


def _cut(part: Value, axis: int, rw: Rewriter) -> _Cut | None:
    """A part as a cut along that axis alone, where its bounds are numbers from the front."""
    node = part.producer
    if node is not None and isinstance(node.op, Split):
        return _share(node, part, axis)
    if node is None or not isinstance(node.op, Slice):
        return None
    bounds = _bounds(node, rw)
    if bounds is None or list(bounds) != [axis]:
        return None
    start, end, step = bounds[axis]
    x = node.need("x")
    size = x.tensor.shape[axis] if x.tensor.shape else None
    if isinstance(size, int):
        start, end = (max(b + size, 0) if b < 0 else b for b in (start, end))
    return _Cut(x, start, end) if step == 1 and 0 <= start <= end else None


def _share(node: Node[Split], part: Value, axis: int) -> _Cut | None:
    """One part of a split."""
    x = node.need("x")
    sizes = [
        None if r is None or r.tensor.shape is None else r.tensor.shape[axis] for r in node.results
    ]
    sizes = list(node.op.split) or sizes
    before, own = sizes[: part.index], sizes[part.index]
    numbers = [size for size in before if isinstance(size, int)]
    if node.op.axis % (x.tensor.rank or 1) != axis or len(numbers) < len(before):
        return None
    return _Cut(x, sum(numbers), sum(numbers) + own) if isinstance(own, int) else None


def _is_empty(value: Value, axis: int) -> bool:
    shape = value.tensor.shape
    return shape is not None and shape[axis] == 0


def _same_fill(a: Node[Pad], b: Node[Pad], rw: Rewriter) -> bool:
    """Whether two pads add one number; no number stands for 0."""
    left, right = a.operand("value"), b.operand("value")
    if left is right:
        return True
    x = np.zeros(()) if left is None else rw.array(left)
    y = np.zeros(()) if right is None else rw.array(right)
    return x is not None and y is not None and bool((x == y).all())
