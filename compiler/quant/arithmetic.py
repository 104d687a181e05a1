"""Arithmetic of scales and zero points. Numbers are ``real = scale * (stored - zero_point)``.

Rounding is to nearest, ties to even, as ONNX QuantizeLinear does it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from qdqc.ir.core import Constant
from qdqc.ir.types import Array, Elem, Quant, Range

__all__ = [
    "ALL_ZERO",
    "BIAS_LIMIT",
    "absorbs",
    "activation_quant",
    "bias_floor",
    "bias_quant",
    "block_quant",
    "dequantize",
    "numbers",
    "quant_range",
    "quantize",
    "rounded",
    "row_quant",
    "spread",
    "weight_quant",
]

BIAS_LIMIT = 2.0**30
"""Largest stored bias: half of int32, so that the sum of products has room beside it."""

_AT_ONCE = 1 << 22
"""Elements that are worked on at a time: the arithmetic takes ten times their bytes."""

_FITTED_AT_ONCE = 1 << 17
"""Elements whose blocks are fitted at a time: they stay in the processor's caches."""

_REFINEMENTS = 2
"""Turns of rounding and fitting the scale of a block; more find nothing better."""


ALL_ZERO = Range(0.0, 1e-5, 1e-5)
"""How a calibration table says that a value was zero in every sample."""


def activation_quant(
    range_: Range,
    elem: Elem,
    *,
    symmetric: bool = False,
    clamp: tuple[float, float] | None = None,
    empty: float = 1.0,
) -> Quant:
    """Scale and zero point of an activation, per tensor.

    Asymmetric: ``scale = (max - min) / (qmax - qmin)`` over the range widened to hold zero,
    ``zero_point = round(qmin - min / scale)``. Symmetric: the threshold is the range, with the
    zero point at the type's lower end for values that are never negative, else in its middle.
    A range without extent (all values zero, or next to it) gets scale 1. A value that was zero in
    every sample (``ALL_ZERO``) gets the range [0, ``empty``]: it says nothing of its scale, and
    the table's 1e-5 would cut off whatever comes one day and leave a bias no room in int32.

    ``clamp``, which must hold zero, is an activation that the integers shall do by saturation:
    the range is cut to it. Where rounding keeps saturation from reaching a bound, the scale is
    ``(max - min) / (qmax - qmin + 1)``, with which it always does.
    """
    if range_ == ALL_ZERO:
        range_ = Range(0.0, empty, empty)
    if clamp is None:
        return _affine(range_, elem, symmetric)
    low, high = max(range_.min, clamp[0]), min(range_.max, clamp[1])
    if not _is_scale((high - low) / 255):
        low, high = max(clamp[0], -1.0), min(clamp[1], 1.0)
    widest = max(abs(clamp[0]), abs(clamp[1]))
    cut = Range(low, high, min(range_.threshold, widest))
    quant = _affine(cut, elem, symmetric)
    if symmetric and not absorbs(quant, clamp, elem):
        quant = _affine(cut, elem, symmetric=False)
    qmin, qmax = elem.limits
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32((high - low) / (qmax - qmin + 1))
    if not _is_scale(scale) or absorbs(quant, clamp, elem):
        return quant
    zero = np.clip(np.rint(qmin - low / float(scale)), qmin, qmax)
    return Quant.make(scale, int(zero))


def absorbs(quant: Quant, clamp: tuple[float, float], elem: Elem) -> bool:
    """Whether integers of that type saturate wherever the clamp does, so that it may go."""
    qmin, qmax = elem.limits
    zero = int(quant.zero_point)
    with np.errstate(over="ignore"):
        low, high = (np.rint(np.float32(bound) / quant.scale) + zero for bound in clamp)
    return bool(low <= qmin and high >= qmax)


def _is_scale(value: float | np.floating[Any]) -> bool:
    """Whether a scale is large enough to divide by: no subnormal number."""
    return bool(value >= np.finfo(np.float32).tiny)


def _affine(range_: Range, elem: Elem, symmetric: bool) -> Quant:
    qmin, qmax = elem.limits
    if symmetric:
        low = 0.0 if range_.min >= 0 else -range_.threshold
        high = range_.threshold
    else:
        low, high = min(range_.min, 0.0), max(range_.max, 0.0)
    scale = np.float32((high - low) / (qmax - qmin))
    if not _is_scale(scale):
        return Quant.make(1.0, qmin if low >= 0 else (qmin + qmax + 1) // 2)
    if symmetric and low < 0:
        middle = (qmin + qmax + 1) // 2
        return Quant.make(high / (qmax - middle), middle)
    zero = np.clip(np.rint(qmin - low / float(scale)), qmin, qmax)
    return Quant.make(scale, int(zero))


def quant_range(quant: Quant, elem: Elem) -> Range:
    """The numbers that integers of a per-tensor scale reach.

    ``activation_quant`` of it gives the scale and the zero point back, a symmetric one where
    they are symmetric: the products are exact, a float32 times an integer of 16 bits or fewer.
    """
    scale, zero = float(quant.scale), int(quant.zero_point)
    qmin, qmax = elem.limits
    low, high = (qmin - zero) * scale, (qmax - zero) * scale
    symmetric = zero in (qmin, (qmin + qmax + 1) // 2)
    return Range(low, high, high if symmetric else max(-low, high))


def weight_quant(
    weight: Array, axis: int | None, limit: int, *, floor: npt.ArrayLike = 0.0
) -> Quant:
    """Symmetric scales of a weight, per channel along ``axis`` or per tensor (None).

    ``scale = absmax / limit``, with zero point 0; ``limit`` is the largest stored weight.
    A channel of zeros takes the largest scale of the others, so that its bias keeps its
    resolution. ``floor`` is the least scale allowed,
    broadcast over the channels (see ``bias_floor``).
    """
    values = weight.astype(np.float32, copy=False)
    others = tuple(i for i in range(values.ndim) if i != axis) if axis is not None else None
    absmax = np.maximum(values.max(axis=others, initial=0), -values.min(axis=others, initial=0))
    scale = np.asarray(absmax / limit, dtype=np.float32)
    largest = float(scale.max(initial=0.0))
    scale = np.where(scale > 0, scale, np.float32(largest if largest > 0 else 1.0))
    tiny = np.finfo(np.float32).tiny
    return Quant.make(np.maximum(np.maximum(scale, floor), tiny), 0, axis)


def row_quant(weight: Array, limit: int) -> Quant:
    """Symmetric scales of a stack of matrices [count, out, in], one for each row of each.

    A single matrix has them along its axis. Of several, a row is one block of its numbers.
    """
    count, rows, width = weight.shape
    if count == 1:
        return weight_quant(weight, 1, limit)
    scale = weight_quant(weight.reshape(count * rows, width), 0, limit).scale
    scales = scale.reshape(count, rows, 1)
    return Quant.make(scales, np.zeros(scales.shape, np.int64), 2, width)


def block_quant(weight: Array, block: int, elem: Elem) -> Quant:
    """Scales and zero points of a matrix [K,N] in blocks of rows, of least squared error.

    A block's range is its least and largest number, zero among them, or 0.7 to 1 times that. For
    integers q that it gives, the scale of least error is ``sum(w q) / sum(q^2)``; rounding and
    this take turns, and the best of all counts. ``block`` divides K.
    """
    step = max(1, _FITTED_AT_ONCE // (block * max(1, weight.shape[1]))) * block
    starts = range(0, max(1, len(weight)), step)
    parts = [_of_blocks(weight[i : i + step], block, elem.limits[1]) for i in starts]
    scales, zeros = (np.concatenate(same) for same in zip(*parts, strict=True))
    return Quant.make(scales, zeros.astype(np.int64), 0, block)


def _of_blocks(
    weight: Array, block: int, qmax: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Scales and zero points of ``block_quant``, [K/block,N]."""
    w = weight.astype(np.float32).reshape(-1, block, weight.shape[1])
    low = np.minimum(w.min(axis=1, keepdims=True), 0)
    high = np.maximum(w.max(axis=1, keepdims=True), 0)
    best = np.full(low.shape, np.inf)
    scales, zeros = np.ones_like(low), np.zeros_like(low)
    for cut in np.linspace(0.7, 1.0, 13, dtype=np.float32):
        scale = _divisor(cut * (high - low) / np.float32(qmax))
        zero = np.clip(np.rint(-cut * low / scale), 0, qmax)
        for _ in range(_REFINEMENTS + 1):
            q = np.clip(np.rint(w / scale) + zero, 0, qmax) - zero
            error = np.square(q * scale - w).sum(axis=1, keepdims=True)
            better = error < best
            best, scales = np.where(better, error, best), np.where(better, scale, scales)
            zeros = np.where(better, zero, zeros)
            energy = np.square(q).sum(axis=1, keepdims=True)
            fitted = (w * q).sum(axis=1, keepdims=True) / np.where(energy > 0, energy, 1)
            scale = _divisor(fitted)
    return scales[:, 0], zeros[:, 0]


def _divisor(scale: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.where(scale >= np.finfo(np.float32).tiny, scale, np.float32(1.0))


def bias_floor(bias: Array, input_scale: float) -> npt.NDArray[np.float32]:
    """The least weight scale per channel at which the bias fits: |b| / (s_x * s_w) < 2^30."""
    return (np.abs(bias.astype(np.float64)) / (input_scale * BIAS_LIMIT)).astype(np.float32)


def bias_quant(input_scale: Array, weight: Quant) -> Quant:
    """Scale of the int32 bias: the float32 product s_x * s_w, channel by channel."""
    product = np.float32(input_scale) * weight.scale
    return Quant.make(product, 0, None if product.ndim == 0 else 0)


def quantize(array: Array, quant: Quant, elem: Elem, *, narrow: bool = False) -> Array:
    """Stored integers of an array, saturated; ``narrow`` leaves out the most negative value."""
    qmin, qmax = elem.limits
    scale, zero = spread(quant, array.ndim)
    # Division in float64 for a bias: float32 has too few digits for large int32 values.
    wide = np.float64 if elem.bits > 16 else np.float32
    scale, out = scale.astype(wide), np.empty(array.shape, elem.dtype)
    for part in _slabs(array.shape):
        stored = np.rint(array[part].astype(wide) / _cut(scale, part)) + _cut(zero, part)
        out[part] = np.clip(stored, qmin + (1 if narrow else 0), qmax).astype(elem.dtype)
    return out


def dequantize(array: Array, quant: Quant) -> npt.NDArray[np.float32]:
    """The float32 numbers that stored integers stand for."""
    scale, zero = spread(quant, array.ndim)
    out = np.empty(array.shape, np.float32)
    for part in _slabs(array.shape):
        whole = array[part].astype(np.int64) - _cut(zero, part)
        out[part] = whole.astype(np.float32) * _cut(scale, part)
    return out


def _cut(parameter: npt.NDArray[Any], part: tuple[slice, ...]) -> npt.NDArray[Any]:
    """What of a scale or zero point, shaped to broadcast, belongs to a part of the tensor."""
    sizes = zip(part, parameter.shape, strict=False)
    return parameter[tuple(p if size > 1 else slice(None) for p, size in sizes)]


def _slabs(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Parts of an array of at most ``_AT_ONCE`` elements each, along its longest axis."""
    size = math.prod(shape)
    if size <= _AT_ONCE:
        yield (slice(None),) * len(shape)
        return
    axis = shape.index(max(shape))
    step = max(1, _AT_ONCE * shape[axis] // size)
    for start in range(0, shape[axis], step):
        yield (*(slice(None),) * axis, slice(start, start + step))


def numbers(value: Constant) -> Array:
    """The numbers that a constant stands for, quantized or not."""
    array, quant = value.data.array(), value.tensor.quant
    return array if quant is None else dequantize(array, quant)


def rounded(array: Array, quant: Quant, elem: Elem) -> npt.NDArray[np.float32]:
    """``dequantize(quantize(array))`` of an activation, without the integers in between."""
    qmin, qmax = (bound - int(quant.zero_point) for bound in elem.limits)
    out = np.asarray(array, np.float32) / quant.scale
    np.rint(out, out=out)
    np.clip(out, qmin, qmax, out=out)
    return np.multiply(out, quant.scale, out=out)


def spread(quant: Quant, rank: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Scale and zero point shaped to broadcast against a tensor of that rank."""
    if quant.axis is None:
        return quant.scale, quant.zero_point
    if quant.block is not None:
        return (
            np.repeat(quant.scale, quant.block, axis=quant.axis),
            np.repeat(quant.zero_point, quant.block, axis=quant.axis),
        )
    shape = [1] * rank
    shape[quant.axis] = -1
    return quant.scale.reshape(shape), quant.zero_point.reshape(shape)
