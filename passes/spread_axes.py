"""spread-axes: a Pad, a Resize or a crop speaks of all axes, not of some that it names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from qdqc.ir.core import Node, Value
from qdqc.ir.dims import Dim
from qdqc.ir.types import Array, Elem
from qdqc.ops import CenterCropPad, Concat, Gather, Pad, Resize, Shape, Slice
from qdqc.ops.inference import axes_in
from qdqc.rewrite.pattern import PatternPass, Result, Rewriter, rewrites

__all__ = ["SpreadAxes"]

_Entry: TypeAlias = int | float | Value


class SpreadAxes(PatternPass):
    """Write what a Pad, Resize or CenterCropPad says of some axes for all of them.

    onnxruntime moves transposes through these ops, and between integer convolutions it then
    rewrites pads, scales and sizes as if they had an entry for each axis.
    """

    name = "spread-axes"

    @rewrites(Pad)
    def pad(self, node: Node[Pad], rw: Rewriter) -> Result:
        """pad(x, p, axes) = pad(x, p with 0 for other axes)."""
        x, pads, named = node.need("x"), node.need("pads"), node.operand("axes")
        if named is None:
            return rw.no("it speaks of all axes")
        given, rank = rw.array(named), x.tensor.rank
        if given is None or rank is None:
            return rw.no("its axes or the rank are not known", named)
        axes = axes_in([int(a) for a in given], rank)
        starts = _spread(pads, axes, [0] * rank, 0)
        ends = _spread(pads, axes, [0] * rank, len(axes))
        return rw.op(node.op, x, _joined(rw, [*starts, *ends], pads), node.operand("value"))

    @rewrites(Resize)
    def resize(self, node: Node[Resize], rw: Rewriter) -> Result:
        """resize(x, s){axes} = resize(x, s with 1, or the size itself, for other axes)."""
        op, x = node.op, node.need("x")
        shape = x.tensor.shape
        if not op.axes:
            return rw.no("it speaks of all axes")
        if shape is None:
            return rw.no("the rank is not known", x)
        axes = axes_in(op.axes, len(shape))
        roi, scales, sizes = (_stated(node.operand(n)) for n in ("roi", "scales", "sizes"))
        wanted = sizes
        if sizes is not None and op.keep_aspect_ratio_policy != "stretch":
            exact = _in_proportion(op, [shape[a] for a in axes], rw.array(sizes))
            if exact is None:
                return rw.no("its sizes keep a proportion that they do not state", sizes)
            wanted = rw.constant(np.array(exact, np.int64), sizes.name)
        rank = len(shape)
        if scales is not None:
            scales = _joined(rw, _spread(scales, axes, [1.0] * rank), scales)
        if wanted is not None:
            others = [_size(rw, x, axis) if axis not in axes else 0 for axis in range(rank)]
            wanted = _joined(rw, _spread(wanted, axes, others), wanted)
        if roi is not None:
            starts = _spread(roi, axes, [0.0] * rank)
            roi = _joined(rw, [*starts, *_spread(roi, axes, [1.0] * rank, len(axes))], roi)
        whole = replace(op, axes=(), keep_aspect_ratio_policy="stretch")
        return rw.op(whole, x, roi, scales, wanted)

    @rewrites(CenterCropPad)
    def crop(self, node: Node[CenterCropPad], rw: Rewriter) -> Result:
        """center_crop_pad(x, s) = pad(slice(x, around the middle), zeros around it)."""
        x, wanted = node.need("x"), rw.array(node.need("shape"))
        shape = x.tensor.shape
        if shape is None or wanted is None:
            return rw.no("its sizes or the rank are not known", node.need("shape"))
        axes = axes_in(node.op.axes, len(shape)) or tuple(range(len(shape)))
        sizes = {axis: (shape[axis], int(w)) for axis, w in zip(axes, wanted, strict=True)}
        known = {axis: (a, b) for axis, (a, b) in sizes.items() if isinstance(a, int)}
        if len(known) < len(sizes):
            return rw.no("a size of what it crops is not known", x)
        cut = {axis: (a - b) // 2 for axis, (a, b) in known.items() if a > b}
        if cut:
            ends = [start + known[axis][1] for axis, start in cut.items()]
            bounds = (list(cut.values()), ends, list(cut))
            x = rw.op(Slice(), x, *(rw.constant(np.array(b, np.int64)) for b in bounds))
        pads = np.zeros((2, len(shape)), np.int64)
        for axis, (size, goal) in known.items():
            missing = max(0, goal - size)
            pads[:, axis] = missing // 2, missing - missing // 2
        return rw.op(Pad(), x, rw.constant(pads.reshape(-1)))


def _stated(value: Value | None) -> Value | None:
    """An operand of no elements counts as absent."""
    return None if value is None or value.shape == (0,) else value


def _in_proportion(op: Resize, sizes: Sequence[Dim], wanted: Any) -> list[int] | None:
    """The sizes that come out, where stretching to them is the same as keeping the proportion."""
    known = [size for size in sizes if isinstance(size, int)]
    if wanted is None or len(known) < len(sizes):
        return None
    choose = min if op.keep_aspect_ratio_policy == "not_larger" else max
    scale = choose(float(w) / size for size, w in zip(known, wanted, strict=True))
    out = [math.floor(size * scale + 0.5) for size in known]
    same = all(np.float32(o / s) == np.float32(scale) for o, s in zip(out, known, strict=True))
    return out if same else None


def _size(rw: Rewriter, x: Value, axis: int) -> _Entry:
    size = x.tensor.shape[axis] if x.tensor.shape is not None else None
    if isinstance(size, int):
        return size
    return rw.op(Gather(), rw.op(Shape(), x), rw.constant(np.array([axis], np.int64)))


def _spread(
    values: Value, axes: Sequence[int], others: Sequence[_Entry], first: int = 0
) -> list[_Entry | tuple[Value, int]]:
    """For each axis an entry of ``values``, counted from ``first``, or what others have."""
    out: list[_Entry | tuple[Value, int]] = list(others)
    for place, axis in enumerate(axes):
        out[axis] = (values, first + place)
    return out


def _joined(rw: Rewriter, entries: Sequence[_Entry | tuple[Value, int]], like: Value) -> Value:
    """One operand of these entries: a constant where all of them are known."""
    dtype = like.tensor.elem.dtype if like.tensor.elem is not Elem.I32 else np.dtype(np.int64)
    array = rw.array(like)
    parts: list[Value] = []
    known: list[Array] = []
    for entry in entries:
        if isinstance(entry, Value):
            parts.append(entry)
            continue
        if not isinstance(entry, tuple):
            number: Any = entry
        elif array is not None:
            number = array.reshape(-1)[entry[1]]
        else:
            place = rw.constant(np.array([entry[1]], np.int64))
            parts.append(rw.op(Gather(), entry[0], place))
            continue
        known.append(np.array([number], dtype))
        parts.append(rw.constant(known[-1]))
    if len(known) == len(parts):
        return rw.constant(np.concatenate(known), like.name)
    return rw.op(Concat(axis=0), *parts)
