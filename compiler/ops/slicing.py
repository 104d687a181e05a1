"""Ops that cut tensors up and put them together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from qdqc.ir.dims import Dim, Expr
from qdqc.ir.op import Kind, Onnx, Op, QuantTraits
from qdqc.ir.types import VALUE_LIMIT, Elem, TensorType
from qdqc.ops.inference import (
    axes_in,
    axis_in,
    contents,
    dims_operand,
    grid,
    least,
    need_elem,
    need_rank,
    same_elem,
    traits,
    typed,
    whole_numbers,
)

__all__ = ["CenterCropPad", "Concat", "Pad", "Slice", "Split", "slice_dim"]

_WHOLE = 2**31 - 1
"""Bounds from here on stand for the end of the axis, whatever its size."""

_LARGEST = 2**63 - 1

_MOST_PARTS = 1 << 16
"""A split into more parts than this is taken for a broken file."""


def slice_dim(size: Dim, start: Dim, end: Dim, step: Dim) -> Dim:
    """Size of ``x[start:end:step]`` along one axis.

    Symbolic bounds are taken to lie within the axis; numbers on a symbolic axis are followed
    only where they certainly do.
    """
    if step == 0:
        raise ValueError("a slice needs a step other than 0")
    if not isinstance(step, int) or size is None or start is None or end is None:
        return None
    if isinstance(size, int) and isinstance(start, int) and isinstance(end, int):
        places = _places(size, start, end, step)
        if places is None:
            return None
        # Arithmetic, since `len` of a range stops at the machine's integers.
        reach = places.stop - places.start
        return max(0, -(-reach // step))
    if step < 0:
        whole = (start == -1 or _is_far(start, 1)) and _is_far(end, -1)
        return (size - step - 1) // -step if whole else None
    first, last = _bound(start, size), _bound(end, size)
    if first is None or last is None:
        return None
    length = last - first
    shortest = least(length)
    symbolic = isinstance(start, Expr) or isinstance(end, Expr)
    if isinstance(length, int):
        return max(0, -(-length // step))
    # A symbolic bound may be less than a number that inference can compare it with.
    certain = symbolic or (shortest is not None and shortest >= 0)
    return (length + step - 1) // step if certain else None


def _places(size: int, start: int, end: int, step: int) -> range | None:
    """The indices that a slice reads. Backwards, a start before the axis is its first element.

    None for a backward slice to the largest integer: nothing by ONNX, all of it in onnxruntime.
    """
    if step < 0 and end in (_WHOLE, _LARGEST):
        return None
    top, bottom = (size, 0) if step > 0 else (size - 1, -1)
    first, last = (bound + size if bound < 0 else bound for bound in (start, end))
    return range(min(max(first, 0), top), min(max(last, bottom), top), step if size else 1)


def _is_far(bound: Dim, sign: int) -> bool:
    return isinstance(bound, int) and bound * sign >= _WHOLE


def _bound(bound: int | Expr, size: int | Expr) -> Dim:
    """A bound counted from the front, where it is certainly inside the axis."""
    if isinstance(bound, Expr):
        return bound
    if bound >= _WHOLE:
        return size
    if bound <= -_WHOLE:
        return 0
    place = size + bound if bound < 0 else bound
    room = least(place if bound < 0 else size - place)
    return place if room is not None and room >= 0 else None


class Slice(Op):
    """x[starts:ends:steps] along ``axes`` (default: the first ones).

    All bounds are integer operands of rank 1, i32 or i64.
    """

    name = "slice"
    operands = ("x", "starts", "ends", "axes?", "steps?")
    onnx = Onnx("Slice", since=10)

    def infer(
        self,
        x: TensorType,
        starts: TensorType,
        ends: TensorType,
        axes: TensorType | None = None,
        steps: TensorType | None = None,
    ) -> tuple[TensorType]:
        given = {"starts": starts, "ends": ends, "axes": axes, "steps": steps}
        for name, type in given.items():
            if type is not None:
                need_elem(type, name, Elem.I32, Elem.I64)
                need_rank(type, name, 1)
        if x.shape is None:
            return (TensorType(x.elem, None),)
        count = _entries(given)
        chosen = whole_numbers(axes) if axes is not None else _first(count)
        if count is None or chosen is None:
            return (TensorType(x.elem, (None,) * len(x.shape)),)
        first, last = starts.value or (None,) * count, ends.value or (None,) * count
        by = (1,) * count if steps is None else steps.value or (None,) * count
        dims = list(x.shape)
        for i, axis in enumerate(axes_in(chosen, len(x.shape))):
            dims[axis] = slice_dim(dims[axis], first[i], last[i], by[i])
        value = _cut(x, chosen, list(zip(first, last, by, strict=True)))
        return (typed(x.elem, tuple(dims), value),)

    def quant(self, x: TensorType, *bounds: TensorType | None) -> QuantTraits:
        return traits(x, Kind.PRESERVING)


def _first(count: int | None) -> tuple[int, ...] | None:
    return None if count is None else tuple(range(count))


def _entries(given: dict[str, TensorType | None]) -> int | None:
    """How many axes are cut. Raises ValueError when operands disagree."""
    lengths: dict[str, int] = {}
    for name, type in given.items():
        length = None if type is None or type.shape is None else type.shape[0]
        if isinstance(length, int):
            lengths[name] = length
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise ValueError(f"operands differ in the number of entries: {listed}")
    return next(iter(lengths.values()), None)


def _cut(
    x: TensorType, axes: Sequence[int], bounds: Sequence[tuple[Dim, Dim, Dim]]
) -> Sequence[Dim] | None:
    """Known contents of a slice of known contents."""
    numbers = grid(x)
    if numbers is None:
        return None
    for axis, (start, end, step) in zip(axes, bounds, strict=True):
        if not (isinstance(start, int) and isinstance(end, int) and isinstance(step, int)):
            return None
        places = _places(numbers.shape[axis], start, end, step)
        if places is None:
            return None
        numbers = numbers.take(places, axis)
    return numbers.reshape(-1).tolist()


class Split(Op):
    """x in parts along ``axis``, of the sizes ``split``.

    Without sizes there are ``num_outputs`` equal parts, of which the last may be smaller.
    """

    name = "split"
    operands = ("x",)
    results = ("ys*",)
    onnx = Onnx(
        "Split",
        attr_inputs={"split": (13, 1)},
        field_since={"num_outputs": 18},
        result_count="num_outputs",
    )

    axis: int = 0
    split: tuple[int, ...] = ()
    num_outputs: int | None = None

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        count = len(self.split) or self.num_outputs or 0
        if count > _MOST_PARTS:
            raise ValueError(f"{count} parts are more than the {_MOST_PARTS} that are allowed")
        if count < 1:
            raise ValueError("neither the sizes nor the number of the parts are given")
        if any(size < 0 for size in self.split):
            raise ValueError(f"split {list(self.split)} holds a negative size")
        if self.split and self.num_outputs not in (None, count):
            raise ValueError(f"{count} sizes are given for {self.num_outputs} parts")
        if x.shape is None:
            return (TensorType(x.elem, None),) * count
        axis = axis_in(self.axis, len(x.shape))
        sizes = self._sizes(x.shape[axis], count)
        head, tail = x.shape[:axis], x.shape[axis + 1 :]
        parts: list[TensorType] = []
        position = 0
        numbers = contents(x)
        for size in sizes:
            value = None
            if numbers is not None and isinstance(size, int):
                value = numbers[position : position + size]
                position += size
            parts.append(typed(x.elem, (*head, size, *tail), value))
        return tuple(parts)

    def _sizes(self, whole: Dim, count: int) -> tuple[Dim, ...]:
        if self.split:
            if isinstance(whole, int) and sum(self.split) != whole:
                raise ValueError(f"split {list(self.split)} does not add up to {whole}")
            return self.split
        if whole is None:
            return (None,) * count
        if not isinstance(whole, int):
            even = whole // count
            # An uneven split gives all parts but the last the size rounded up.
            return (even,) * count if even * count == whole else (None,) * count
        part = -(-whole // count)
        last = whole - part * (count - 1)
        if last < 0:
            raise ValueError(f"{whole} elements do not make {count} parts")
        return (*(part,) * (count - 1), last)

    def quant(self, x: TensorType) -> QuantTraits:
        return traits(x, Kind.PRESERVING)


class Concat(Op):
    """All operands one behind the other along ``axis``."""

    name = "concat"
    operands = ("xs*",)
    onnx = Onnx("Concat")

    axis: int

    def infer(self, *xs: TensorType) -> tuple[TensorType]:
        if not xs:
            raise ValueError("at least one operand is needed")
        same_elem(**{f"operand {i}": x for i, x in enumerate(xs)})
        ranks = {len(x.shape) for x in xs if x.shape is not None}
        if len(ranks) > 1:
            raise ValueError(f"operands differ in rank: {sorted(ranks)}")
        if not ranks:
            return (TensorType(xs[0].elem, None),)
        (rank,) = ranks
        axis = axis_in(self.axis, rank)
        shapes = [(None,) * rank if x.shape is None else x.shape for x in xs]
        dims = tuple(
            _added(column) if i == axis else _agreed(column, i)
            for i, column in enumerate(zip(*shapes, strict=True))
        )
        value: tuple[Dim, ...] | None = ()
        for x, shape in zip(xs, shapes, strict=True):
            numbers = contents(x)
            if numbers is None and rank == 1 and isinstance(shape[0], int):
                numbers = (None,) * shape[0] if shape[0] <= VALUE_LIMIT else None
            value = None if value is None or numbers is None else value + numbers
        return (typed(xs[0].elem, dims, value),)

    def quant(self, *xs: TensorType) -> QuantTraits:
        return traits(xs[0], Kind.ARITHMETIC) if xs else QuantTraits()


def _added(dims: Sequence[Dim]) -> Dim:
    total: Dim = 0
    for dim in dims:
        total = None if total is None or dim is None else total + dim
    return total


def _agreed(dims: Sequence[Dim], axis: int) -> Dim:
    """The one size that all operands have along an axis."""
    numbers = {d for d in dims if isinstance(d, int)}
    if len(numbers) > 1:
        raise ValueError(f"operands differ along axis {axis}: {sorted(numbers)}")
    return next(iter(numbers)) if numbers else next((d for d in dims if d is not None), None)


class Pad(Op):
    """x with elements added (or removed) before and behind each of ``axes``.

    ``pads`` is i64 of rank 1: all counts before, then all behind. ``mode`` is ``constant``
    (with ``value``, default 0), ``reflect``, ``edge`` or ``wrap``.
    """

    name = "pad"
    operands = ("x", "pads", "value?", "axes?")
    onnx = Onnx("Pad", since=11)

    mode: Literal["constant", "reflect", "edge", "wrap"] = "constant"

    def infer(
        self,
        x: TensorType,
        pads: TensorType,
        value: TensorType | None = None,
        axes: TensorType | None = None,
    ) -> tuple[TensorType]:
        same_elem(x=x, value=value)
        counts = dims_operand(pads, "pads")
        if x.shape is None:
            return (TensorType(x.elem, None),)
        rank = len(x.shape)
        chosen = tuple(range(rank)) if axes is None else whole_numbers(axes)
        if counts is None or chosen is None:
            return (TensorType(x.elem, (None,) * rank),)
        if len(counts) != 2 * len(chosen):
            raise ValueError(f"pads has {len(counts)} entries for {len(chosen)} axes")
        dims = list(x.shape)
        for i, axis in enumerate(axes_in(chosen, rank)):
            dims[axis] = _added((dims[axis], counts[i], counts[len(chosen) + i]))
            size = dims[axis]
            if isinstance(size, int) and size < 0:
                raise ValueError(f"pads leave {size} elements along axis {axis}")
        return (TensorType(x.elem, tuple(dims)),)


class CenterCropPad(Op):
    """The middle of x in the sizes that ``shape`` gives, zeros around it where x is smaller.

    ``shape`` is an integer operand with one entry for each of ``axes`` (default: all axes).
    """

    name = "center_crop_pad"
    operands = ("x", "shape")
    onnx = Onnx("CenterCropPad", since=18)

    axes: tuple[int, ...] = ()

    def infer(self, x: TensorType, shape: TensorType) -> tuple[TensorType]:
        need_elem(shape, "shape", Elem.I32, Elem.I64)
        need_rank(shape, "shape", 1)
        if x.shape is None:
            return (TensorType(x.elem, None),)
        axes = axes_in(self.axes, len(x.shape)) or tuple(range(len(x.shape)))
        wanted = (None,) * len(axes) if shape.value is None else shape.value
        if len(wanted) != len(axes):
            raise ValueError(f"shape has {len(wanted)} entries for {len(axes)} axes")
        dims = list(x.shape)
        for axis, size in zip(axes, wanted, strict=True):
            dims[axis] = size
        return (TensorType(x.elem, tuple(dims)),)
