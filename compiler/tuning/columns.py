"""A product with weights as one matrix product: rows of the weight, columns of what it reads.

Every output number of a Conv, Gemm or MatMul is ``w . c + b``: a row ``w`` of the weight and a
column ``c`` of K numbers of what the product reads. Groups of a Conv are matrices of their own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.data import Data
from qdqc.ir.op import QuantTraits
from qdqc.ir.types import Array, Elem, Quant, TensorType
from qdqc.ops import Conv, Gemm, MatMul
from qdqc.quant.arithmetic import numbers
from qdqc.tuning.rounding import row_slabs
from qdqc.tuning.scaling import scaled_name

__all__ = ["Columns", "Product", "columns_of_conv", "product_of"]


_SHUFFLED = 1 << 24
"""Numbers that are drawn from without one coming twice, which takes a list of them all."""


@dataclass(frozen=True)
class Columns:
    """How a product unrolls what it reads into columns of K numbers.

    ``kernel`` and what follows it are those of a Conv, an entry an axis, ``pads`` before and
    behind; a Gemm or MatMul has none of them: its columns are the rows of the matrix it reads.
    """

    groups: int = 1
    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    pads: tuple[tuple[int, int], ...] = ()

    def sums(self, x: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float64], int]:
        """The sum of all columns of x, [groups, K], and how many they are.

        No column is formed: along each axis the places that a tap of the kernel reads are a
        slice, so that this takes about the memory of x, whatever the kernel.
        """
        if not self.kernel:
            flat = x.reshape(-1, x.shape[-1])
            return flat.sum(axis=0, dtype=np.float64)[None], len(flat)
        reduced, count = x.sum(axis=0, dtype=np.float64), x.shape[0]
        for axis, (size, taps) in enumerate(zip(x.shape[2:], self.kernel, strict=True)):
            sums = np.empty((reduced.shape[0], *reduced.shape[2:], taps))
            for tap in range(taps):
                reduced[:, self._slice(axis, size, tap)].sum(axis=1, out=sums[..., tap])
            reduced = sums
            count *= self._outputs(axis, size)
        return reduced.reshape(self.groups, -1), count

    def ends(self, x: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """The least and largest number of each channel of x, padding left out: [C] twice."""
        axis = 1 if self.kernel else x.ndim - 1
        others = tuple(i for i in range(x.ndim) if i != axis)
        if not x.size:
            return np.zeros(x.shape[axis], x.dtype), np.zeros(x.shape[axis], x.dtype)
        return x.min(axis=others), x.max(axis=others)

    def picked(self, x: npt.NDArray[Any], count: int, seed: int = 0) -> npt.NDArray[np.float32]:
        """At most ``count`` columns of x, drawn evenly: [groups, count, K]."""
        if not self.kernel:
            flat = x.reshape(-1, x.shape[-1])
            return flat[_drawn(len(flat), count, seed)][None].astype(np.float32, copy=False)
        padded = np.pad(x, ((0, 0), (0, 0), *self.pads))
        outputs = (len(x), *(self._outputs(i, n) for i, n in enumerate(x.shape[2:])))
        drawn = np.unravel_index(_drawn(math.prod(outputs), count, seed), outputs)
        rank, index = len(self.kernel), [drawn[0].reshape(-1, *[1] * len(self.kernel))]
        for axis, at in enumerate(drawn[1:]):
            taps = np.arange(self.kernel[axis]) * self.dilations[axis]
            shape = [len(taps) if i == axis else 1 for i in range(rank)]
            places = at[:, None] * self.strides[axis] + taps
            index.append(places.reshape(len(at), *shape))
        columns = padded[index[0], :, *index[1:]]  # [count, *kernel, C]
        depth = x.shape[1] // self.groups * math.prod(self.kernel)
        columns = np.moveaxis(columns, -1, 1).reshape(len(columns), self.groups, depth)
        return np.ascontiguousarray(columns.transpose(1, 0, 2), dtype=np.float32)

    def depth(self, x: npt.NDArray[Any]) -> int:
        """The numbers that a column of each group of x has, all groups together."""
        return x.shape[1] * math.prod(self.kernel) if self.kernel else x.shape[-1]

    def _outputs(self, axis: int, size: int) -> int:
        """How many outputs there are along an axis of so many numbers."""
        reach = self.dilations[axis] * (self.kernel[axis] - 1) + 1
        return max(0, (size + sum(self.pads[axis]) - reach) // self.strides[axis] + 1)

    def _slice(self, axis: int, size: int, tap: int) -> slice:
        """The places along an axis that a tap of the kernel reads, those in padding left out."""
        stride, first = self.strides[axis], tap * self.dilations[axis] - self.pads[axis][0]
        begin = first if first >= 0 else first % stride
        end = min(size, first + stride * (self._outputs(axis, size) - 1) + 1)
        return slice(begin, max(begin, end), stride)


def _drawn(available: int, count: int, seed: int) -> npt.NDArray[np.int64]:
    if available <= count:
        return np.arange(available)
    draw = np.random.default_rng(seed)
    if available <= _SHUFFLED:
        return np.sort(draw.choice(available, count, replace=False))
    return np.unique(draw.integers(0, available, count))  # of so many, next to none comes twice


@dataclass(frozen=True)
class Product:
    """A node with a weight of float numbers, and the columns that it reads.

    ``transposed`` says that the weight holds its rows as columns, [K,O]. ``bias`` is the place of
    an operand that takes a number for each output; None where there is no room for one.
    """

    node: Node[Any]
    x: Value
    weight: Constant
    columns: Columns = Columns()
    transposed: bool = False

    @property
    def traits(self) -> QuantTraits:
        """How quantization sees the node."""
        return self.node.traits

    @property
    def is_dense(self) -> bool:
        """Whether it is a product of matrices: its columns are what the last axis of x holds."""
        return not self.columns.kernel

    @property
    def rows_shape(self) -> tuple[int, int, int]:
        """Groups, outputs of a group, and K."""
        groups, outputs, depth = self.rows(np.empty(self.weight.data.shape, np.bool_)).shape
        return groups, outputs, depth

    def rows(self, weight: Array) -> npt.NDArray[Any]:
        """A weight, or what has its shape, as rows: [groups, outputs of a group, K]."""
        if self.columns.kernel:
            outputs = len(weight) // self.columns.groups
            return weight.reshape(self.columns.groups, outputs, -1)
        return (weight.T if self.transposed else weight)[None]

    def as_weight(self, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The inverse of ``rows``."""
        if self.columns.kernel:
            return rows.reshape(self.weight.data.shape)
        return np.ascontiguousarray(rows[0].T if self.transposed else rows[0])

    @property
    def takes_bias(self) -> bool:
        """Whether a number can be added to each output at no cost: in a bias that is constant,
        or one that an integer kernel takes for nothing.
        """
        traits, (groups, outputs, _) = self.traits, self.rows_shape
        bias = self.node.at(self._bias_place)
        if bias is None:
            return traits.bias is not None
        return isinstance(bias, Constant) and bias.data.size == groups * outputs

    @property
    def _bias_place(self) -> int | None:
        traits = self.traits
        return traits.bias if traits.bias is not None else traits.float_bias

    def add_to_bias(self, shift: npt.NDArray[np.floating[Any]]) -> None:
        """Add a number to each output; where there is no bias, the node gets one."""
        place, module = self._bias_place, self.node.graph.module
        assert place is not None
        bias = self.node.at(place)
        before = numbers(bias).astype(np.float64) if isinstance(bias, Constant) else np.zeros(())
        moved = (before + shift.reshape(before.shape or (-1,))).astype(np.float32)
        name = module.fresh_name(f"{self.node.name}_bias")
        self._set(place, module.add_constant(name, Data.of(moved)))

    @property
    def channel_axis(self) -> int:
        """The axis of x that holds the channels which the columns run through."""
        return 1 if self.columns.kernel else (self.x.tensor.rank or 1) - 1

    def input_reach(self, channels: int) -> npt.NDArray[Any]:
        """The largest weight of each channel of the input: [C]."""
        rows = np.abs(self.rows(self.weight.data.array())).max(axis=1)
        return rows.reshape(channels, -1).max(axis=1)

    def scale_inputs(self, factors: npt.NDArray[np.floating[Any]]) -> None:
        """Multiply what the weight holds for each channel of the input, [C]."""
        rows = self.rows(self.weight.data.array())
        groups, _, depth = rows.shape
        taps = depth * groups // len(factors)
        by_column = np.repeat(factors.reshape(groups, -1), taps, axis=1)[:, None, :]
        scaled = np.empty(rows.shape, np.float32)
        for part in row_slabs(rows.shape):
            scaled[:, part] = rows[:, part] * by_column.astype(np.float64)
        self.store_rows(scaled, scaled_name(self.weight))

    def store_rows(self, rows: npt.NDArray[Any], name: str) -> None:
        """Let the node read a float weight with these rows, by that name."""
        module, place = self.node.graph.module, self.traits.weight
        assert place is not None
        data = Data.of(self.as_weight(rows).astype(np.float32, copy=False))
        self._set(place, module.add_constant(name, data))

    def store_weight(self, stored: Array, elem: Elem, quant: Quant) -> None:
        """Let the node read integers in place of its weight."""
        module = self.node.graph.module
        type_ = TensorType(elem, self.weight.tensor.shape, quant)
        name = module.fresh_name(f"{self.weight.name}_{elem.text}")
        place = self.traits.weight
        assert place is not None
        self._set(place, module.add_constant(name, Data.of(stored, elem), type_))

    def _set(self, place: int, value: Constant) -> None:
        operands = [*self.node.operands, *[None] * (place + 1 - len(self.node.operands))]
        operands[place] = value
        self.node.set_operands(operands)


def product_of(node: Node[Any]) -> Product | str:
    """The node as a product with a weight; else why it is none."""
    op, traits = node.op, node.traits
    x, weight = node.at(0), node.at(traits.weight)
    if not isinstance(op, Conv | Gemm | MatMul) or traits.weight is None or x is None:
        return "it is not a product with a weight"
    if not isinstance(weight, Constant):
        return "its weight is not a constant"
    if weight.data.is_elided:
        return "its weight is elided"
    if weight.tensor.elem is not Elem.F32:
        return f"its weight is {weight.tensor.elem.text}"
    if isinstance(op, MatMul):
        return Product(node, x, weight, transposed=True)
    if isinstance(op, Gemm):
        if op.trans_a or op.alpha != 1 or op.beta != 1:
            return "the Gemm transposes or scales what it reads"
        return Product(node, x, weight, transposed=not op.trans_b)
    if op.auto_pad not in ("NOTSET", "VALID"):
        return f"its padding is {op.auto_pad}"
    return Product(node, x, weight, columns_of_conv(op, weight.data.shape[2:]))


def columns_of_conv(op: Conv, kernel: tuple[int, ...]) -> Columns:
    """How a Conv with a kernel of that size reads; its padding is explicit."""
    rank = len(kernel)
    ones, flat = (1,) * rank, op.pads or (0,) * (2 * rank)
    pads = tuple(zip(flat[:rank], flat[rank:], strict=True))
    return Columns(op.group, kernel, op.strides or ones, op.dilations or ones, pads)
