"""What ops make of quantized constants whose numbers they only move about."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.data import Data
from qdqc.ir.types import Elem, Quant, TensorType
from qdqc.ops import Concat, Slice, Split, Transpose

__all__ = ["moved_constants"]

Stored = tuple[Data, TensorType]
Array = npt.NDArray[Any]


def moved_constants(node: Node[Any], sources: Sequence[Value]) -> list[Stored] | None:
    """The integers and types of the results of a node that moves the integers ``sources``.

    None where one is no constant, where the node does more than move, or where a result's
    scales no longer lie along one axis.
    """
    if not all(isinstance(s, Constant) and not s.data.is_elided for s in sources):
        return None
    parts = [(s.data.array(), q) for s in sources if isinstance(s, Constant) and (q := s.quant)]
    elems = {s.elem for s in sources}
    if len(parts) != len(sources) or len(elems) != 1 or any(q.block for _, q in parts):
        return None
    made = _moved(node, parts)
    elem = next(iter(elems))
    if made is None or elem is None:
        return None
    return [_stored(array, quant, elem) for array, quant in made]


def _stored(array: Array, quant: Quant, elem: Elem) -> Stored:
    array = np.ascontiguousarray(array)
    return Data.of(array, elem), TensorType(elem, array.shape, quant)


def _moved(node: Node[Any], parts: list[tuple[Array, Quant]]) -> list[tuple[Array, Quant]] | None:
    op = node.op
    if isinstance(op, Concat):
        joined = _joined(parts, op.axis) if len(parts) == len(node.operands) else None
        return None if joined is None else [joined]
    if len(parts) != 1:
        return None
    array, quant = parts[0]
    if isinstance(op, Transpose):
        perm = op.perm or tuple(reversed(range(array.ndim)))
        axis = None if quant.axis is None else perm.index(quant.axis)
        return [(array.transpose(perm), Quant.make(quant.scale, quant.zero_point, axis))]
    shapes = [r.tensor.static_shape for r in node.present_results]
    if op.keeps_order and shapes[0] is not None:
        reshaped = _reshaped(quant, array.shape, shapes[0])
        return None if reshaped is None else [(array.reshape(shapes[0]), reshaped)]
    if isinstance(op, Slice):
        cuts = _cuts(node, array.ndim)
        return None if cuts is None else [_cut(array, quant, cuts)]
    if isinstance(op, Split) and len(shapes) == len(node.results) and None not in shapes:
        return _split(array, quant, op.axis % array.ndim, [s for s in shapes if s is not None])
    return None


def _reshaped(quant: Quant, old: tuple[int, ...], new: tuple[int, ...]) -> Quant | None:
    """Scales per axis follow where the axis has the same elements around it as before."""
    if quant.axis is None:
        return quant
    around = math.prod(old[: quant.axis]), math.prod(old[quant.axis + 1 :])
    for axis, size in enumerate(new):
        if size == old[quant.axis] and around == (
            math.prod(new[:axis]),
            math.prod(new[axis + 1 :]),
        ):
            return Quant.make(quant.scale, quant.zero_point, axis)
    return None


def _cuts(node: Node[Slice], rank: int) -> list[slice] | None:
    """The part that a slice takes of each axis; None where its bounds are not known."""
    bounds: dict[str, list[int]] = {}
    for name in ("starts", "ends", "axes", "steps"):
        value = node.operand(name)
        if value is None:
            continue
        if not isinstance(value, Constant) or value.data.is_elided:
            return None
        bounds[name] = [int(i) for i in value.data.array()]
    starts, ends = bounds["starts"], bounds["ends"]
    axes = bounds.get("axes", list(range(len(starts))))
    steps = bounds.get("steps", [1] * len(starts))
    cuts = [slice(None)] * rank
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step < 1:
            return None
        cuts[axis % rank] = slice(start, end, step)
    return cuts


def _cut(array: Array, quant: Quant, cuts: Sequence[slice]) -> tuple[Array, Quant]:
    if quant.axis is None:
        return array[tuple(cuts)], quant
    cut = cuts[quant.axis]
    scales = Quant.make(quant.scale[cut], quant.zero_point[cut], quant.axis)
    return array[tuple(cuts)], scales


def _split(
    array: Array, quant: Quant, axis: int, shapes: Sequence[tuple[int, ...]]
) -> list[tuple[Array, Quant]]:
    ends = np.cumsum([0, *(shape[axis] for shape in shapes)])
    whole = [slice(None)] * array.ndim
    cuts = [slice(int(a), int(b)) for a, b in itertools.pairwise(ends)]
    return [_cut(array, quant, [*whole[:axis], cut, *whole[axis + 1 :]]) for cut in cuts]


def _joined(parts: Sequence[tuple[Array, Quant]], axis: int) -> tuple[Array, Quant] | None:
    """Joined along the axis of their scales, which differ; along another they must be equal."""
    axis %= parts[0][0].ndim
    joined = np.concatenate([array for array, _ in parts], axis=axis)
    first = parts[0][1]
    if all(quant == first for _, quant in parts) and first.axis != axis:
        return joined, first
    if any(quant.axis not in (None, axis) for _, quant in parts):
        return None
    sizes = [array.shape[axis] for array, _ in parts]
    pairs = list(zip(sizes, (quant for _, quant in parts), strict=True))
    scales = np.concatenate([np.broadcast_to(q.scale, size) for size, q in pairs])
    zeros = np.concatenate([np.broadcast_to(q.zero_point, size) for size, q in pairs])
    return joined, Quant.make(scales, zeros, axis)
