"""Reductions along axes, running sums, and determinants."""

from __future__ import annotations

from typing import ClassVar

from qdqc.ir.dims import Dim, product
from qdqc.ir.op import Kind, Onnx, Op, QuantTraits
from qdqc.ir.types import Elem, TensorType
from qdqc.ops.inference import (
    axes_in,
    axis_in,
    contents,
    listed,
    need_elem,
    traits,
    typed,
)

__all__ = [
    "ArgMax",
    "ArgMin",
    "CumProd",
    "CumSum",
    "Det",
    "Reduce",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
]


def _spelling(type: str, axes_input: int = 18) -> Onnx:
    """The axes became an input in one opset, which also brought ``noop_with_empty_axes``."""
    return Onnx(
        type,
        attr_inputs={"axes": (axes_input, 1)},
        field_since={"noop_with_empty_axes": axes_input},
    )


class Reduce(Op):
    """What reductions share.

    No axes stand for all of them, or with ``noop_with_empty_axes`` for none. Axes that are
    computed are an operand.
    """

    operands = ("x", "computed_axes?")
    keeps_one: ClassVar[bool] = False
    """Whether the reduction of a single element is that element."""

    axes: tuple[int, ...] = ()
    keepdims: bool = True
    noop_with_empty_axes: bool = False

    def infer(self, x: TensorType, computed_axes: TensorType | None = None) -> tuple[TensorType]:
        if computed_axes is not None:
            known = self.keepdims and x.shape is not None
            return (TensorType(x.elem, (None,) * len(x.shape or ()) if known else None),)
        if not self.axes and self.noop_with_empty_axes:
            return (typed(x.elem, x.shape, x.value),)
        if x.shape is None:
            scalar = not self.axes and not self.keepdims
            return (TensorType(x.elem, () if scalar else None),)
        axes = set(axes_in(self.axes, len(x.shape)) or range(len(x.shape)))
        dims: list[Dim] = []
        for axis, dim in enumerate(x.shape):
            if axis not in axes:
                dims.append(dim)
            elif self.keepdims:
                dims.append(1)
        numbers = contents(x) if x.shape else None
        value = None if numbers is None else self.compute(numbers)
        return (typed(x.elem, tuple(dims), None if value is None else (value,)),)

    def compute(self, values: tuple[Dim, ...]) -> Dim:
        """The result on dimensions; None where it is unknown."""
        return None


class ReduceMean(Reduce):
    """The mean."""

    name = "reduce_mean"
    onnx = _spelling("ReduceMean")
    keeps_one = True


class ReduceSum(Reduce):
    """The sum."""

    name = "reduce_sum"
    onnx = _spelling("ReduceSum", 13)
    keeps_one = True

    def compute(self, values: tuple[Dim, ...]) -> Dim:
        total: Dim = 0
        for value in values:
            total = None if total is None or value is None else total + value
        return total


class ReduceMax(Reduce):
    """The largest element."""

    name = "reduce_max"
    onnx = _spelling("ReduceMax")
    keeps_one = True

    def compute(self, values: tuple[Dim, ...]) -> Dim:
        numbers = [v for v in values if isinstance(v, int)]
        return max(numbers) if numbers and len(numbers) == len(values) else None

    def quant(self, x: TensorType, computed_axes: TensorType | None = None) -> QuantTraits:
        return traits(x, Kind.PRESERVING)


class ReduceMin(Reduce):
    """The smallest element."""

    name = "reduce_min"
    onnx = _spelling("ReduceMin")
    keeps_one = True

    def compute(self, values: tuple[Dim, ...]) -> Dim:
        numbers = [v for v in values if isinstance(v, int)]
        return min(numbers) if numbers and len(numbers) == len(values) else None


class ReduceProd(Reduce):
    """The product."""

    name = "reduce_prod"
    onnx = _spelling("ReduceProd")
    keeps_one = True

    def compute(self, values: tuple[Dim, ...]) -> Dim:
        return product(values)


class ReduceL1(Reduce):
    """The sum of absolute values."""

    name = "reduce_l1"
    onnx = _spelling("ReduceL1")
    not_negative = True


class ReduceL2(Reduce):
    """The square root of the sum of squares."""

    name = "reduce_l2"
    onnx = _spelling("ReduceL2")
    not_negative = True


class ReduceLogSum(Reduce):
    """The logarithm of the sum."""

    name = "reduce_log_sum"
    onnx = _spelling("ReduceLogSum")


class ReduceLogSumExp(Reduce):
    """The logarithm of the sum of exponentials."""

    name = "reduce_log_sum_exp"
    onnx = _spelling("ReduceLogSumExp")


class ReduceSumSquare(Reduce):
    """The sum of squares."""

    name = "reduce_sum_square"
    onnx = _spelling("ReduceSumSquare")
    not_negative = True


class _Arg(Op):
    """What searches for an extreme along one axis share; the result is an i64 index."""

    operands = ("x",)

    axis: int = 0
    keepdims: bool = True
    select_last_index: bool = False

    def infer(self, x: TensorType) -> tuple[TensorType]:
        if x.shape is None:
            return (TensorType(Elem.I64, None),)
        axis = axis_in(self.axis, len(x.shape))
        kept = (1,) if self.keepdims else ()
        return (TensorType(Elem.I64, (*x.shape[:axis], *kept, *x.shape[axis + 1 :])),)


class ArgMax(_Arg):
    """Where the largest element is."""

    name = "arg_max"
    onnx = Onnx("ArgMax", field_since={"select_last_index": 12})


class ArgMin(_Arg):
    """Where the smallest element is."""

    name = "arg_min"
    onnx = Onnx("ArgMin", field_since={"select_last_index": 12})


class _Running(Op):
    """What running sums and products share; ``exclusive`` leaves each element itself out."""

    operands = ("x", "axis")

    exclusive: bool = False
    reverse: bool = False

    def infer(self, x: TensorType, axis: TensorType) -> tuple[TensorType]:
        need_elem(axis, "axis", Elem.I32, Elem.I64)
        if x.shape is not None and axis.value and isinstance(axis.value[0], int):
            axis_in(axis.value[0], len(x.shape))
        return (TensorType(x.elem, x.shape),)


class CumSum(_Running):
    """Running sums along an axis, which is an operand of rank 0."""

    name = "cum_sum"
    onnx = Onnx("CumSum", since=11)


class CumProd(_Running):
    """Running products along an axis, which is an operand of rank 0."""

    name = "cum_prod"
    onnx = Onnx("CumProd", since=26)


class Det(Op):
    """The determinants of the square matrices in the last two dimensions of x."""

    name = "det"
    operands = ("x",)
    onnx = Onnx("Det", since=11)

    def infer(self, x: TensorType) -> tuple[TensorType]:
        if x.shape is None:
            return (TensorType(x.elem, None),)
        rows, columns = x.shape[-2:] if len(x.shape) > 1 else (None, None)
        wrong = isinstance(rows, int) and isinstance(columns, int) and rows != columns
        if wrong or len(x.shape) < 2:
            raise ValueError(f"x of {listed(x.shape)} holds no square matrices")
        return (TensorType(x.elem, x.shape[:-2]),)
