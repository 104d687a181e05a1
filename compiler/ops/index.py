"""Ops that read and write elements by index, and ops that give indices."""

from __future__ import annotations

from typing import Literal

from qdqc.ir.dims import Dim, product
from qdqc.ir.op import Kind, Onnx, Op, QuantTraits
from qdqc.ir.types import Elem, TensorType
from qdqc.ops.inference import (
    Reduction,
    axis_in,
    contents,
    listed,
    need_elem,
    need_rank,
    same_elem,
    traits,
    typed,
    whole_numbers,
)

__all__ = [
    "Compress",
    "Gather",
    "GatherElements",
    "GatherND",
    "NonZero",
    "OneHot",
    "ReverseSequence",
    "ScatterElements",
    "ScatterND",
    "TensorScatter",
    "TopK",
    "Trilu",
    "Unique",
]


class Gather(Op):
    """The slices of x along ``axis`` that ``indices`` (i32 or i64) name."""

    name = "gather"
    operands = ("x", "indices")
    onnx = Onnx("Gather")

    axis: int = 0

    def infer(self, x: TensorType, indices: TensorType) -> tuple[TensorType]:
        need_elem(indices, "indices", Elem.I32, Elem.I64)
        if x.shape is None or indices.shape is None:
            return (TensorType(x.elem, None),)
        axis = axis_in(self.axis, len(x.shape))
        wanted = whole_numbers(indices)
        size = x.shape[axis]
        if wanted is not None and isinstance(size, int):
            for index in wanted:
                if not -size <= index < size:
                    raise ValueError(f"index {index} is out of range for axis {axis} of {size}")
        shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
        value = None
        numbers = contents(x)
        if numbers is not None and wanted is not None:
            value = tuple(numbers[index] for index in wanted)
        return (typed(x.elem, shape, value),)

    def quant(self, x: TensorType, indices: TensorType) -> QuantTraits:
        return traits(x, Kind.PRESERVING)


class GatherElements(Op):
    """Elements of x, each at its own place save that ``indices`` names it along ``axis``."""

    name = "gather_elements"
    operands = ("x", "indices")
    onnx = Onnx("GatherElements", since=11)

    axis: int = 0

    def infer(self, x: TensorType, indices: TensorType) -> tuple[TensorType]:
        need_elem(indices, "indices", Elem.I32, Elem.I64)
        if x.rank is not None:
            axis_in(self.axis, x.rank)
            need_rank(indices, "indices", x.rank)
        return (TensorType(x.elem, indices.shape),)


class GatherND(Op):
    """The slices of x that the rows of ``indices`` (i64) name, after ``batch_dims`` shared axes."""

    name = "gather_nd"
    operands = ("x", "indices")
    onnx = Onnx("GatherND", since=11, field_since={"batch_dims": 12})

    batch_dims: int = 0

    def infer(self, x: TensorType, indices: TensorType) -> tuple[TensorType]:
        need_elem(indices, "indices", Elem.I64)
        if self.batch_dims < 0:  # with which onnxruntime crashes
            raise ValueError(f"batch_dims is {self.batch_dims}, but 0 or more is needed")
        if x.shape is None or indices.shape is None:
            return (TensorType(x.elem, None),)
        if not x.shape or not indices.shape:
            raise ValueError("x and indices need rank 1 or more")
        width = indices.shape[-1]
        if not isinstance(width, int):
            return (TensorType(x.elem, None),)
        taken = self.batch_dims + width
        if self.batch_dims >= min(len(x.shape), len(indices.shape)) or taken > len(x.shape):
            raise ValueError(
                f"rows of {width} indices after {self.batch_dims} shared axes do not fit "
                f"x of rank {len(x.shape)}"
            )
        return (TensorType(x.elem, (*indices.shape[:-1], *x.shape[taken:])),)


def _may_be(shape: tuple[Dim, ...], wanted: tuple[Dim, ...]) -> bool:
    """Whether no two sizes contradict each other."""
    pairs = zip(shape, wanted, strict=False)
    clash = any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs)
    return len(shape) == len(wanted) and not clash


def _same_shape(indices: TensorType, updates: TensorType) -> None:
    if indices.shape is None or updates.shape is None:
        return
    if not _may_be(indices.shape, updates.shape):
        raise ValueError(
            f"updates has shape {listed(updates.shape)}, but indices {listed(indices.shape)}"
        )


class ScatterElements(Op):
    """x with ``updates`` written, each at its own place save that ``indices`` names it on ``axis``.

    ``reduction`` joins old and new: none, add, mul, max or min.
    """

    name = "scatter_elements"
    operands = ("x", "indices", "updates")
    onnx = Onnx("ScatterElements", since=11, field_since={"reduction": 16})

    axis: int = 0
    reduction: Reduction = "none"

    def infer(self, x: TensorType, indices: TensorType, updates: TensorType) -> tuple[TensorType]:
        need_elem(indices, "indices", Elem.I32, Elem.I64)
        same_elem(x=x, updates=updates)
        if x.rank is not None:
            axis_in(self.axis, x.rank)
            need_rank(indices, "indices", x.rank)
            need_rank(updates, "updates", x.rank)
        _same_shape(indices, updates)
        return (TensorType(x.elem, x.shape),)


class ScatterND(Op):
    """x with slices ``updates`` written where the rows of ``indices`` (i64) say."""

    name = "scatter_nd"
    operands = ("x", "indices", "updates")
    onnx = Onnx("ScatterND", since=11, field_since={"reduction": 16})

    reduction: Reduction = "none"

    def infer(self, x: TensorType, indices: TensorType, updates: TensorType) -> tuple[TensorType]:
        need_elem(indices, "indices", Elem.I64)
        same_elem(x=x, updates=updates)
        if x.shape is not None and indices.shape:
            self._check_updates(x.shape, indices.shape, updates)
        return (TensorType(x.elem, x.shape),)

    def _check_updates(
        self, x: tuple[Dim, ...], indices: tuple[Dim, ...], updates: TensorType
    ) -> None:
        """Updates are one slice of x per row of indices."""
        width = indices[-1]
        if not isinstance(width, int):
            return
        if width > len(x):
            raise ValueError(f"rows of {width} indices do not fit x of rank {len(x)}")
        wanted = (*indices[:-1], *x[width:])
        if updates.shape is not None and not _may_be(updates.shape, wanted):
            raise ValueError(f"updates has shape {listed(updates.shape)}, not {listed(wanted)}")


class TopK(Op):
    """The ``k`` largest (or smallest) elements along ``axis`` and their indices."""

    name = "topk"
    operands = ("x", "k")
    results = ("values", "indices")
    onnx = Onnx("TopK", since=10, field_since={"largest": 11, "sorted": 11})

    axis: int = -1
    largest: bool = True
    sorted: bool = True

    def infer(self, x: TensorType, k: TensorType) -> tuple[TensorType, TensorType]:
        need_elem(k, "k", Elem.I64)
        need_rank(k, "k", 0, 1)
        if x.shape is None:
            return (TensorType(x.elem, None), TensorType(Elem.I64, None))
        axis = axis_in(self.axis, len(x.shape))
        size, count = x.shape[axis], k.value[0] if k.value else None
        if isinstance(size, int) and isinstance(count, int) and not 0 <= count <= size:
            raise ValueError(f"k is {count}, but axis {axis} has {size} elements")
        shape = (*x.shape[:axis], count, *x.shape[axis + 1 :])
        return (TensorType(x.elem, shape), TensorType(Elem.I64, shape))


class OneHot(Op):
    """``values[1]`` where an index points along a new axis of ``depth``, else ``values[0]``."""

    name = "one_hot"
    operands = ("indices", "depth", "values")
    onnx = Onnx("OneHot", since=9)

    axis: int = -1

    def infer(
        self, indices: TensorType, depth: TensorType, values: TensorType
    ) -> tuple[TensorType]:
        need_rank(values, "values", 1)
        need_rank(depth, "depth", 0, 1)
        if values.shape and isinstance(values.shape[0], int) and values.shape[0] != 2:
            raise ValueError(f"values has {values.shape[0]} entries, but 2 are needed: off and on")
        if indices.shape is None:
            return (TensorType(values.elem, None),)
        axis = axis_in(self.axis, len(indices.shape) + 1)
        size = depth.value[0] if depth.value else None
        if isinstance(size, int) and size < 1:
            raise ValueError(f"depth is {size}, but 1 or more is needed")
        return (TensorType(values.elem, (*indices.shape[:axis], size, *indices.shape[axis:])),)


class NonZero(Op):
    """Indices of the elements that are not zero, i64 [rank, count]."""

    name = "non_zero"
    operands = ("x",)
    onnx = Onnx("NonZero", since=9)

    def infer(self, x: TensorType) -> tuple[TensorType]:
        # A scalar counts as a vector of one element in onnxruntime, as having no axis in ONNX.
        return (TensorType(Elem.I64, (x.rank or None, None)),)


class Compress(Op):
    """The slices of x along ``axis`` whose condition holds; no axis stands for a flat x."""

    name = "compress"
    operands = ("x", "condition")
    onnx = Onnx("Compress", since=9)

    axis: int | None = None

    def infer(self, x: TensorType, condition: TensorType) -> tuple[TensorType]:
        need_elem(condition, "condition", Elem.BOOL)
        need_rank(condition, "condition", 1)
        if self.axis is None:
            return (TensorType(x.elem, (None,)),)
        if x.shape is None:
            return (TensorType(x.elem, None),)
        axis = axis_in(self.axis, len(x.shape))
        count: Dim = None
        if condition.value is not None and all(isinstance(c, int) for c in condition.value):
            count = sum(1 for c in condition.value if c)
        return (TensorType(x.elem, (*x.shape[:axis], count, *x.shape[axis + 1 :])),)


class Trilu(Op):
    """The upper or lower triangle of matrices from diagonal ``k`` (i64) on, zeros elsewhere."""

    name = "trilu"
    operands = ("x", "k?")
    onnx = Onnx("Trilu", since=14)

    upper: bool = True

    def infer(self, x: TensorType, k: TensorType | None = None) -> tuple[TensorType]:
        if k is not None:
            need_elem(k, "k", Elem.I64)
        if x.rank is not None and x.rank < 2:
            raise ValueError(f"x has rank {x.rank}, but rank 2 or more is needed")
        return (TensorType(x.elem, x.shape),)


class ReverseSequence(Op):
    """x with the first ``lengths[i]`` entries of sequence i along ``time_axis`` reversed."""

    name = "reverse_sequence"
    operands = ("x", "lengths")
    onnx = Onnx("ReverseSequence", since=10)

    batch_axis: int = 1
    time_axis: int = 0

    def infer(self, x: TensorType, lengths: TensorType) -> tuple[TensorType]:
        need_elem(lengths, "lengths", Elem.I64)
        need_rank(lengths, "lengths", 1)
        if x.rank is not None and x.rank < 2:
            raise ValueError(f"x has rank {x.rank}, but rank 2 or more is needed")
        if x.shape is not None:
            batch = axis_in(self.batch_axis, len(x.shape), "batch_axis")
            axis_in(self.time_axis, len(x.shape), "time_axis")
            count, entries = x.shape[batch], lengths.shape[0] if lengths.shape else None
            if isinstance(count, int) and isinstance(entries, int) and count != entries:
                raise ValueError(f"lengths has {entries} entries, but x has {count} sequences")
        return (TensorType(x.elem, x.shape),)


class Unique(Op):
    """What occurs in x, each thing once: elements, or with ``axis`` slices along that axis.

    ``sorted``, or in the order of the first occurrence. Further results are i64 of rank 1: where
    each stands first in x, for each element of x its place in y, and how often each occurs.
    """

    name = "unique"
    operands = ("x",)
    results = ("y", "indices?", "inverse_indices?", "counts?")
    onnx = Onnx("Unique", since=11)

    axis: int | None = None
    sorted: bool = True

    def infer(self, x: TensorType) -> tuple[TensorType, TensorType, TensorType, TensorType]:
        count = TensorType(Elem.I64, (None,))
        if self.axis is None:
            inverse = TensorType(Elem.I64, (None if x.shape is None else product(x.shape),))
            return (TensorType(x.elem, (None,)), count, inverse, count)
        if x.shape is None:
            return (TensorType(x.elem, None), count, count, count)
        axis = axis_in(self.axis, len(x.shape))
        shape = (*x.shape[:axis], None, *x.shape[axis + 1 :])
        return (TensorType(x.elem, shape), count, TensorType(Elem.I64, (x.shape[axis],)), count)


class TensorScatter(Op):
    """x with ``update`` written over it along ``axis``, from ``write_indices`` (i64 [N]) on.

    Both have a batch in front; there is one index for each of its entries (default 0). With the
    mode ``circular`` what leaves the end goes on at the start.
    """

    name = "tensor_scatter"
    operands = ("x", "update", "write_indices?")
    onnx = Onnx("TensorScatter", since=24)

    axis: int = -2
    mode: Literal["linear", "circular"] = "linear"

    def infer(
        self, x: TensorType, update: TensorType, write_indices: TensorType | None = None
    ) -> tuple[TensorType]:
        same_elem(x=x, update=update)
        if write_indices is not None:
            need_elem(write_indices, "write_indices", Elem.I64)
            need_rank(write_indices, "write_indices", 1)
        if x.shape is not None:
            need_rank(update, "update", len(x.shape))
            if axis_in(self.axis, len(x.shape)) == 0:
                raise ValueError("axis 0 is the batch")
        return (TensorType(x.elem, x.shape),)
