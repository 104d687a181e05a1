"""What can be wrong with one type: its quantization and its calibrated range."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from qdqc.ir.types import OptionalType, Quant, Range, SequenceType, TensorType, Type

__all__ = ["type_problems"]


def type_problems(type: Type) -> Iterator[str]:
    """Sentences on what is wrong with a type; nothing for a sound one."""
    if isinstance(type, SequenceType | OptionalType):
        yield from type_problems(type.item)
        return
    if type.quant is not None:
        yield from _quant(type, type.quant)
    if type.range is not None:
        yield from _range(type.range)


def _range(range: Range) -> Iterator[str]:
    if any(math.isnan(n) for n in (range.min, range.max, range.threshold)):
        yield "its range holds a NaN"
    elif range.min > range.max:
        yield f"its range is inverted: min {range.min:g}, max {range.max:g}"
    elif range.threshold < 0:
        yield f"its range has a negative threshold, {range.threshold:g}"


def _quant(type: TensorType, quant: Quant) -> Iterator[str]:
    elem = type.elem
    if not elem.is_integer and elem.bits > 8:
        yield f"{elem.text} can't be quantized, only integers and floats of 8 bits or fewer"
        return
    if not elem.is_integer and not elem.is_float:
        yield f"{elem.text} can't be quantized"
        return
    scale = quant.scale
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        yield "its scale is not finite and above 0 everywhere"
    low, high = elem.limits if elem.is_integer else (0, 0)
    zeros = quant.zero_point
    if zeros.size and (zeros.min() < low or zeros.max() > high):
        yield f"its zero point is outside {elem.text} ({low} to {high})"
    yield from _layout(type, quant)


def _layout(type: TensorType, quant: Quant) -> Iterator[str]:
    """The shape of scale and zero point against the axis, the block and the value's shape."""
    shape, axis, block = type.shape, quant.axis, quant.block
    counts = quant.scale.shape
    if quant.zero_point.shape != counts:
        yield "its scale and its zero point differ in shape"
    elif axis is None:
        if block is not None or counts != ():
            yield "it has several scales, or a block, but no axis"
    elif axis < 0 or (shape is not None and axis >= len(shape)):
        yield f"its axis {axis} is outside a rank of {'?' if shape is None else len(shape)}"
    elif block is not None:
        yield from _blocks(type, counts, axis, block)
    elif len(counts) != 1:
        yield "scales along an axis are a list"
    elif shape is not None:
        size = shape[axis]
        if isinstance(size, int) and size != counts[0]:
            yield f"it has {counts[0]} scales along axis {axis}, whose size is {size}"


def _blocks(type: TensorType, counts: tuple[int, ...], axis: int, block: int) -> Iterator[str]:
    if block < 1:
        yield f"its block of {block} is not above 0"
    elif type.shape is None:
        return
    elif len(counts) != len(type.shape):
        yield f"scales in blocks have rank {len(counts)}, the value has {len(type.shape)}"
    else:
        for index, (count, size) in enumerate(zip(counts, type.shape, strict=True)):
            if not isinstance(size, int):
                continue
            if index == axis and size % block:
                yield f"its block of {block} does not divide axis {axis}, whose size is {size}"
            elif count != (size // block if index == axis else size):
                yield f"it has {count} scales along axis {index}, whose size is {size}"
