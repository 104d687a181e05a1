"""Shape arithmetic that the ops' ``infer`` methods share. All raise ValueError in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from qdqc.diagnostics import suggestion
from qdqc.ir.dims import Dim, Expr, FloorDiv, broadcast, product
from qdqc.ir.op import Kind, QuantTraits
from qdqc.ir.types import VALUE_LIMIT, Elem, TensorType

__all__ = [
    "AutoPad",
    "Reduction",
    "axes_in",
    "axis_in",
    "broadcast_shapes",
    "contents",
    "dims_operand",
    "elem_named",
    "grid",
    "known",
    "least",
    "listed",
    "need_broadcast",
    "need_elem",
    "need_rank",
    "same_elem",
    "spatial",
    "traits",
    "typed",
    "whole_numbers",
    "window_dim",
    "window_dims",
]


AutoPad: TypeAlias = Literal["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]
"""How a window finds its padding; NOTSET takes it from ``pads``."""

Reduction: TypeAlias = Literal["none", "add", "mul", "max", "min"]
"""How a scattered element joins the one that is there."""


def typed(elem: Elem, shape: tuple[Dim, ...] | None, value: Iterable[Dim] | None) -> TensorType:
    """A tensor type with known contents; they are left out where inference has no use for them."""
    if value is None or shape is None or elem.is_float:
        return TensorType(elem, shape)
    numbers = tuple(value)
    if len(shape) == 1 and not isinstance(shape[0], int):
        shape = (len(numbers),)
    if len(numbers) > VALUE_LIMIT or product(shape) != len(numbers):
        return TensorType(elem, shape)
    return TensorType(elem, shape, value=numbers)


def contents(type: TensorType) -> tuple[Dim, ...] | None:
    """Known contents of a tensor of rank 0 or 1."""
    return type.value if type.shape is not None and len(type.shape) < 2 else None


def grid(type: TensorType) -> npt.NDArray[np.object_] | None:
    """Known contents as an array of dimensions in the tensor's shape."""
    shape = type.static_shape
    if type.value is None or shape is None:
        return None
    out = np.empty(len(type.value), dtype=np.object_)
    out[:] = type.value
    return out.reshape(shape)


def traits(
    type: TensorType, kind: Kind = Kind.FLOAT, fixed: tuple[float, float] | None = None
) -> QuantTraits:
    """Traits of an op on an operand of that type: only float32 numbers are ever quantized."""
    return QuantTraits(kind, fixed=fixed) if type.elem is Elem.F32 else QuantTraits()


def axis_in(axis: int, rank: int, what: str = "axis") -> int:
    """The axis counted from the front. Raises ValueError when it is out of range."""
    if not -rank <= axis < rank:
        raise ValueError(f"{what} {axis} is out of range for rank {rank}")
    return axis % rank


def axes_in(axes: Sequence[int], rank: int, what: str = "axis") -> tuple[int, ...]:
    """Axes counted from the front, each once. Raises ValueError."""
    positive = tuple(axis_in(axis, rank, what) for axis in axes)
    if len(set(positive)) != len(positive):
        raise ValueError(f"{what} {list(axes)} names an axis twice for rank {rank}")
    return positive


def need_rank(type: TensorType, name: str, low: int, high: int | None = None) -> None:
    """Check a rank between ``low`` and ``high`` (default: ``low`` itself or unknown)."""
    top = low if high is None else high
    if type.rank is not None and not low <= type.rank <= top:
        wanted = str(low) if top == low else f"{low} to {top}"
        raise ValueError(f"{name} has rank {type.rank}, but rank {wanted} is needed")


def need_elem(type: TensorType, name: str, *elems: Elem) -> None:
    """Check that an operand has one of these element types."""
    if type.elem not in elems:
        wanted = " or ".join(e.text for e in elems)
        raise ValueError(f"{name} is {type.elem.text}, but {wanted} is needed")


def elem_named(text: str) -> Elem:
    """The element type of that name. Raises ValueError that suggests the nearest."""
    try:
        return Elem.named(text)
    except KeyError:
        hint = suggestion(text, [e.text for e in Elem])
        raise ValueError(f"'{text}' is not an element type{hint}") from None


def listed(dims: Sequence[Dim] | None) -> str:
    """Dimensions as messages show them."""
    return "[" + ", ".join("?" if d is None else str(d) for d in dims or ()) + "]"


def need_broadcast(type: TensorType, name: str, shape: tuple[Dim, ...] | None) -> None:
    """Check that an operand broadcasts to a shape that it does not change."""
    if type.shape is None or shape is None:
        return
    pairs = zip(reversed(type.shape), reversed(shape), strict=False)
    wrong = any(isinstance(a, int) and isinstance(b, int) and a not in (1, b) for a, b in pairs)
    if wrong or len(type.shape) > len(shape):
        raise ValueError(f"{name} of {listed(type.shape)} does not broadcast to {listed(shape)}")


def same_elem(**operands: TensorType | None) -> None:
    """Check that all operands that are present have one element type."""
    present = {n: t for n, t in operands.items() if t is not None}
    if len({t.elem for t in present.values()}) > 1:
        listed = ", ".join(f"{n} is {t.elem.text}" for n, t in present.items())
        raise ValueError(f"operands differ in element type: {listed}")


def known(*dims: Dim) -> Dim:
    """What is known best of one size from several sources: a number, else an expression."""
    given = [d for d in dims if d is not None]
    return next((d for d in given if isinstance(d, int)), given[0] if given else None)


def whole_numbers(type: TensorType | None) -> tuple[int, ...] | None:
    """Known contents, where all of them are numbers."""
    if type is None or type.value is None:
        return None
    numbers = tuple(d for d in type.value if isinstance(d, int))
    return numbers if len(numbers) == len(type.value) else None


def dims_operand(type: TensorType, name: str) -> tuple[Dim, ...] | None:
    """The dimensions that an i64 operand of rank 1 gives; None where their number is unknown."""
    need_elem(type, name, Elem.I64)
    need_rank(type, name, 1)
    if type.value is not None:
        return type.value
    length = None if type.shape is None else type.shape[0]
    return (None,) * length if isinstance(length, int) and length <= VALUE_LIMIT else None


def least(dim: Dim) -> int | None:
    """The smallest value that an expression can take, where that is easily seen.

    Symbols stand for sizes of 1 or more: inference does not follow empty dynamic dimensions.
    """
    if dim is None or isinstance(dim, int):
        return dim
    total = 0
    for monomial, factor in dim.terms:
        if factor < 0 and monomial:
            return None
        smallest = factor
        for atom in monomial:
            bound = _least_division(atom) if isinstance(atom, FloorDiv) else 1
            if bound is None:
                return None
            smallest *= bound
        total += smallest
    return total


def _least_division(atom: FloorDiv) -> int | None:
    bound = least(atom.num)
    if bound is None or bound < 0:
        return None
    return bound // atom.den if isinstance(atom.den, int) and atom.den > 0 else 0


def broadcast_shapes(*shapes: tuple[Dim, ...] | None) -> tuple[Dim, ...] | None:
    """The shape of operands broadcast as numpy does it; None when a rank is unknown."""
    if any(s is None for s in shapes):
        return None
    known = [s for s in shapes if s is not None]
    rank = max((len(s) for s in known), default=0)
    out: list[Dim] = [1] * rank
    for shape in known:
        for position, dim in enumerate(shape, rank - len(shape)):
            try:
                out[position] = broadcast(out[position], dim)
            except ValueError as error:
                all_shapes = " and ".join(map(listed, known))
                raise ValueError(f"shapes {all_shapes}: {error}") from None
    return tuple(out)


def window_dim(
    size: Dim,
    kernel: Dim,
    *,
    stride: int = 1,
    dilation: int = 1,
    pads: tuple[int, int] = (0, 0),
    auto_pad: str = "NOTSET",
    ceil: bool = False,
) -> Dim:
    """Output size of a sliding window along one dimension, by the ONNX formulas."""
    if stride < 1 or dilation < 1:
        raise ValueError(f"stride {stride} and dilation {dilation} need to be 1 or more")
    if isinstance(kernel, int) and kernel < 1:
        raise ValueError(f"a window needs a size of 1 or more, not {kernel}")
    if size is None or kernel is None or isinstance(kernel, Expr):
        return None
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        return (size + stride - 1) // stride
    reach = dilation * (kernel - 1) + 1
    begin, end = (0, 0) if auto_pad == "VALID" else pads
    span = size + begin + end - reach
    if isinstance(span, int) and span < 0:
        raise ValueError(f"a window of {reach} does not fit a padded size of {span + reach}")
    if not ceil:
        return span // stride + 1
    count = (span + stride - 1) // stride + 1
    # The last window must start inside the input or the left padding.
    if isinstance(count, int) and isinstance(size, int):
        return count - 1 if (count - 1) * stride >= size + begin else count
    return count if end + stride - 1 < reach else None


def window_dims(
    sizes: Sequence[Dim],
    kernel: Sequence[Dim],
    *,
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil: bool = False,
) -> list[Dim]:
    """Output sizes of a window over several dimensions; attributes as ``spatial`` reads them."""
    count = len(kernel)
    begin_end = spatial(pads, 2 * count, 0, "pads")
    steps = spatial(strides, count, 1, "strides")
    spreads = spatial(dilations, count, 1, "dilations")
    return [
        window_dim(
            sizes[i],
            kernel[i],
            stride=steps[i],
            dilation=spreads[i],
            pads=(begin_end[i], begin_end[count + i]),
            auto_pad=auto_pad,
            ceil=ceil,
        )
        for i in range(count)
    ]


def spatial(values: Sequence[int], count: int, default: int, what: str) -> tuple[int, ...]:
    """An attribute with ``count`` entries, those of all spatial dimensions; empty: the default."""
    if not values:
        return (default,) * count
    if len(values) != count:
        needed = "1 is needed" if count == 1 else f"{count} are needed"
        raise ValueError(f"{what} has {len(values)} entries, but {needed}")
    return tuple(values)
