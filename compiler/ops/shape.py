"""Ops that give the same elements another shape, and ops that look at the shape."""

from __future__ import annotations

from typing import Literal

from qdqc.ir.dims import Dim, product
from qdqc.ir.op import Kind, Onnx, Op, QuantTraits
from qdqc.ir.types import VALUE_LIMIT, Elem, TensorType, Type
from qdqc.ops.inference import (
    axes_in,
    broadcast_shapes,
    contents,
    dims_operand,
    grid,
    listed,
    need_rank,
    traits,
    typed,
    whole_numbers,
)

__all__ = [
    "DepthToSpace",
    "Expand",
    "Flatten",
    "Identity",
    "Reshape",
    "Shape",
    "Size",
    "SpaceToDepth",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
]


class _Moving(Op):
    """What ops share that hand on elements of operand 0 unchanged."""

    def quant(self, x: TensorType, *others: TensorType | None) -> QuantTraits:
        return traits(x, Kind.PRESERVING)


class Identity(_Moving):
    """x itself."""

    name = "identity"
    operands = ("x",)
    onnx = Onnx("Identity")
    permutes = keeps_order = True
    any_type = True

    def infer(self, x: Type) -> tuple[Type]:
        return (x,)

    def quant(self, x: Type, *others: TensorType | None) -> QuantTraits:
        return traits(x, Kind.PRESERVING) if isinstance(x, TensorType) else QuantTraits()


class Reshape(_Moving):
    """x in another shape: 0 takes x's dimension (not with ``allowzero``), -1 what is left.

    ``shape`` is i64 of rank 1.
    """

    name = "reshape"
    operands = ("x", "shape")
    onnx = Onnx("Reshape", field_since={"allowzero": 14})
    permutes = keeps_order = True

    allowzero: bool = False

    def infer(self, x: TensorType, shape: TensorType) -> tuple[TensorType]:
        wanted = dims_operand(shape, "shape")
        if wanted is None:
            return (TensorType(x.elem, None),)
        dims = self._resolve(x.shape, wanted)
        return (typed(x.elem, dims, x.value),)

    def _resolve(self, x: tuple[Dim, ...] | None, wanted: tuple[Dim, ...]) -> tuple[Dim, ...]:
        dims = list(wanted)
        left = None if x is None else list(x)
        placed: list[Dim] = []
        for index, dim in enumerate(wanted):
            if isinstance(dim, int) and dim < -1:
                raise ValueError(f"the shape holds {dim}; only -1 has a meaning below 0")
            if dim == 0 and not self.allowzero:
                if x is not None and index >= len(x):
                    raise ValueError(f"entry {index} of the shape is 0, but x has rank {len(x)}")
                dims[index] = None if x is None else x[index]
                if left is not None:
                    left[index] = 1
            elif dim not in (-1, None):
                placed.append(dim)
        inferred = [i for i, d in enumerate(wanted) if d == -1]
        if len(inferred) > 1:
            raise ValueError(f"the shape holds -1 more than once: {listed(wanted)}")
        unknown = [i for i, d in enumerate(wanted) if d is None]
        total = None if left is None else product(tuple(left))
        if len(inferred) + len(unknown) == 1:
            (index,) = *inferred, *unknown
            dims[index] = _rest(total, product(tuple(placed)), x, wanted)
            return tuple(dims)
        for index in inferred:
            dims[index] = None
        if not unknown:
            _same_size(total, product(tuple(placed)), x, wanted)
        return tuple(dims)


def _rest(total: Dim, placed: Dim, x: tuple[Dim, ...] | None, wanted: tuple[Dim, ...]) -> Dim:
    """The dimension that makes the sizes equal."""
    if total is None or placed is None or placed == 0:
        return None
    if isinstance(total, int) and isinstance(placed, int) and total % placed:
        raise ValueError(f"{listed(x)} does not reshape to {listed(wanted)}")
    return total // placed


def _same_size(total: Dim, placed: Dim, x: tuple[Dim, ...] | None, wanted: tuple[Dim, ...]) -> None:
    if isinstance(total, int) and isinstance(placed, int) and total != placed:
        raise ValueError(f"{listed(x)} does not reshape to {listed(wanted)}")


class Flatten(_Moving):
    """x as a matrix: the dimensions before ``axis`` and those from it on."""

    name = "flatten"
    operands = ("x",)
    onnx = Onnx("Flatten")
    permutes = keeps_order = True

    axis: int = 1

    def infer(self, x: TensorType) -> tuple[TensorType]:
        if x.shape is None:
            return (TensorType(x.elem, (None, None)),)
        rank = len(x.shape)
        if not -rank <= self.axis <= rank:
            raise ValueError(f"axis {self.axis} is out of range for rank {rank}")
        axis = self.axis + rank if self.axis < 0 else self.axis
        return (TensorType(x.elem, (product(x.shape[:axis]), product(x.shape[axis:]))),)


class Transpose(_Moving):
    """x with its axes in the order ``perm``; empty stands for the reverse order."""

    name = "transpose"
    operands = ("x",)
    onnx = Onnx("Transpose")
    permutes = True

    perm: tuple[int, ...] = ()

    def infer(self, x: TensorType) -> tuple[TensorType]:
        if x.shape is None:
            return (TensorType(x.elem, (None,) * len(self.perm) if self.perm else None),)
        rank = len(x.shape)
        perm = self.perm or tuple(reversed(range(rank)))
        if sorted(perm) != list(range(rank)):
            raise ValueError(f"perm {list(perm)} does not order the axes of rank {rank}")
        numbers = grid(x)
        value = None if numbers is None else numbers.transpose(perm).reshape(-1)
        return (typed(x.elem, tuple(x.shape[p] for p in perm), value),)


class Squeeze(_Moving):
    """x without the axes of size 1 that are listed; empty stands for all of them."""

    name = "squeeze"
    operands = ("x",)
    onnx = Onnx("Squeeze", attr_inputs={"axes": (13, 1)})
    permutes = keeps_order = True

    axes: tuple[int, ...] = ()

    def infer(self, x: TensorType) -> tuple[TensorType]:
        if x.shape is None:
            return (TensorType(x.elem, None),)
        if not self.axes:
            if not all(isinstance(d, int) for d in x.shape):
                return (TensorType(x.elem, None),)
            return (typed(x.elem, tuple(d for d in x.shape if d != 1), x.value),)
        axes = axes_in(self.axes, len(x.shape))
        for axis in axes:
            if isinstance(x.shape[axis], int) and x.shape[axis] != 1:
                raise ValueError(f"axis {axis} has size {x.shape[axis]}, not 1")
        kept = tuple(d for i, d in enumerate(x.shape) if i not in axes)
        return (typed(x.elem, kept, x.value),)


class Unsqueeze(_Moving):
    """x with axes of size 1 inserted; ``axes`` count in the result."""

    name = "unsqueeze"
    operands = ("x",)
    onnx = Onnx("Unsqueeze", attr_inputs={"axes": (13, 1)})
    permutes = keeps_order = True

    axes: tuple[int, ...]

    def infer(self, x: TensorType) -> tuple[TensorType]:
        if x.shape is None:
            return (TensorType(x.elem, None),)
        rank = len(x.shape) + len(self.axes)
        axes = axes_in(self.axes, rank)
        left = iter(x.shape)
        dims = tuple(1 if i in axes else next(left) for i in range(rank))
        return (typed(x.elem, dims, x.value),)


class Expand(_Moving):
    """x broadcast against ``shape``, an i64 operand of rank 1."""

    name = "expand"
    operands = ("x", "shape")
    onnx = Onnx("Expand", since=8)

    def infer(self, x: TensorType, shape: TensorType) -> tuple[TensorType]:
        wanted = dims_operand(shape, "shape")
        _no_negative(wanted, "shape")
        dims = broadcast_shapes(x.shape, wanted)
        return (typed(x.elem, dims, _repeated(contents(x), dims)),)


def _repeated(
    value: tuple[Dim, ...] | None, dims: tuple[Dim, ...] | None
) -> tuple[Dim, ...] | None:
    """Contents after a broadcast to ``dims``."""
    if value is None or dims is None or len(dims) > 1:
        return None
    if not dims or dims[0] == len(value):
        return value
    if len(value) > 1 or not isinstance(dims[0], int) or dims[0] > VALUE_LIMIT:
        return None
    return value * dims[0]


def _no_negative(dims: tuple[Dim, ...] | None, what: str) -> None:
    if any(isinstance(d, int) and d < 0 for d in dims or ()):
        raise ValueError(f"{what} holds a negative number: {listed(dims)}")


class Tile(_Moving):
    """x repeated along each axis as ``repeats``, an i64 operand of rank 1, says."""

    name = "tile"
    operands = ("x", "repeats")
    onnx = Onnx("Tile")

    def infer(self, x: TensorType, repeats: TensorType) -> tuple[TensorType]:
        counts = dims_operand(repeats, "repeats")
        _no_negative(counts, "repeats")
        if x.shape is None or counts is None:
            known = x.shape if counts is None else counts
            return (TensorType(x.elem, None if known is None else (None,) * len(known)),)
        if len(counts) != len(x.shape):
            raise ValueError(f"repeats has {len(counts)} entries, but x has rank {len(x.shape)}")
        dims = tuple(map(_times, x.shape, counts))
        numbers, entries = whole_numbers(repeats), contents(x)
        small = numbers is not None and len(numbers) == 1 and numbers[0] <= VALUE_LIMIT
        value = entries * numbers[0] if entries and numbers and small else None
        return (typed(x.elem, dims, value),)


def _times(a: Dim, b: Dim) -> Dim:
    return None if a is None or b is None else a * b


class Shape(Op):
    """The dimensions of x from ``start`` to ``end``, i64 of rank 1."""

    name = "shape"
    operands = ("x",)
    onnx = Onnx("Shape", field_since={"start": 15, "end": 15})

    start: int = 0
    end: int | None = None

    def infer(self, x: TensorType) -> tuple[TensorType]:
        if x.shape is None:
            return (TensorType(Elem.I64, (None,)),)
        dims = x.shape[slice(self.start, self.end)]
        return (typed(Elem.I64, (len(dims),), dims),)


class Size(Op):
    """The number of elements of x, i64 of rank 0."""

    name = "size"
    operands = ("x",)
    onnx = Onnx("Size")

    def infer(self, x: TensorType) -> tuple[TensorType]:
        return (TensorType(Elem.I64, (), value=(x.size,)),)


class DepthToSpace(_Moving):
    """Blocks of channels of NCHW become blocks of pixels; ``mode`` orders them: DCR or CRD."""

    name = "depth_to_space"
    operands = ("x",)
    onnx = Onnx("DepthToSpace", field_since={"mode": 11})
    permutes = True

    blocksize: int
    mode: Literal["DCR", "CRD"] = "DCR"

    def infer(self, x: TensorType) -> tuple[TensorType]:
        if x.shape is None:
            return (TensorType(x.elem, (None,) * 4),)
        batch, depth, height, width = _image(x, self.blocksize)
        square = self.blocksize**2
        channels = _parts(depth, square, "channels")
        taller, wider = _times(height, self.blocksize), _times(width, self.blocksize)
        return (TensorType(x.elem, (batch, channels, taller, wider)),)


class SpaceToDepth(Op):
    """Blocks of pixels of NCHW become blocks of channels."""

    name = "space_to_depth"
    operands = ("x",)
    onnx = Onnx("SpaceToDepth", field_since={"mode": 28})
    permutes = True

    blocksize: int
    mode: Literal["DCR", "CRD"] = "DCR"

    def infer(self, x: TensorType) -> tuple[TensorType]:
        if x.shape is None:
            return (TensorType(x.elem, (None,) * 4),)
        batch, depth, height, width = _image(x, self.blocksize)
        channels = _times(depth, self.blocksize**2)
        rows, columns = (_parts(d, self.blocksize, "pixels") for d in (height, width))
        return (TensorType(x.elem, (batch, channels, rows, columns)),)


def _image(x: TensorType, block: int) -> tuple[Dim, Dim, Dim, Dim]:
    need_rank(x, "x", 4)
    if block < 1:
        raise ValueError(f"blocksize {block} needs to be 1 or more")
    batch, depth, height, width = x.shape or (None,) * 4
    return batch, depth, height, width


def _parts(dim: Dim, count: int, what: str) -> Dim:
    if isinstance(dim, int) and dim % count:
        raise ValueError(f"{dim} {what} are not a multiple of {count}")
    return None if dim is None else dim // count
