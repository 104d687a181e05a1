"""decompose-conv-transpose: a transposed convolution as a convolution and a shuffle of pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qdqc.ir.core import Node, Value
from qdqc.ir.types import Array, Elem, Range
from qdqc.ops import Conv, ConvTranspose, Reshape, Transpose
from qdqc.ops.inference import spatial
from qdqc.quant.targets.target import target_named
from qdqc.rewrite.pattern import PatternPass, Result, Rewriter, rewrites

__all__ = ["DecomposeConvTranspose"]


class DecomposeConvTranspose(PatternPass):
    """Write conv_transpose of mode INT8 as conv and pixel shuffle, which run in integers.

    With stride s, result s m + d is a sum over x[m + t] with the taps k = d + p - s t, for each
    phase d a convolution of x itself (Shi et al., Real-Time Single Image and Video
    Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural Network, 2016). The phases
    are channels of one conv; transposes and reshapes lay them side by side. For calibrated modules
    and targets that have an integer conv and no integer conv_transpose, between
    ``assign-precision`` and ``quantize``.
    """

    name = "decompose-conv-transpose"

    target: str = "ort-cpu"

    @rewrites(ConvTranspose)
    def phases(self, node: Node[ConvTranspose], rw: Rewriter) -> Result:
        """conv_transpose(x, W, b) = shuffle(conv(x, W', b'))."""
        x, op = node.need("x"), node.op
        kernels = target_named(self.target).weighted
        if node.mode != "INT8":
            return rw.no(f"its mode is {node.mode or 'not chosen'}")
        if op.name in kernels or Conv.name not in kernels:
            return rw.no("the target has an integer kernel for it, or none for conv")
        weight, bias = rw.array(node.need("weight")), node.operand("bias")
        offsets = rw.array(bias)
        if weight is None or (bias is not None and offsets is None):
            return rw.no("its weight or bias is not a known constant")
        range_, result = node.result.range, node.result
        if x.elem is not Elem.F32 or x.range is None or range_ is None:
            return rw.no("it reads or gives numbers without a calibrated range", x)
        if op.group != 1:
            return rw.no("channels of groups would be out of order")
        if op.clamp is not None and not op.clamp[0] <= 0 <= op.clamp[1]:
            return rw.no("its clamp leaves out zero, which the integers must hold")
        if op.auto_pad not in ("NOTSET", "VALID") or op.output_shape:
            return rw.no("auto_pad or output_shape stands for its pads")
        axes = _axes(op, weight)
        if axes is None:
            return rw.no("its result is no whole number of strides", result)
        sizes = result.tensor.shape[2:] if result.tensor.shape else (None,) * len(axes)
        known = [size if isinstance(size, int) else -1 for size in sizes]
        by_axis = known.count(-1) > 1 and any(a.stride > 1 for a in axes)
        if by_axis and len(axes) > 2:
            return rw.no("more than one size of its result is not a number", result)
        order = range(len(axes))[:: -1 if by_axis else 1]
        pads = (*(a.begin for a in axes), *(a.end for a in axes))
        operands = [x, rw.constant(_by_phase(weight, axes, order), _name(node, "weight"))]
        if offsets is not None:
            repeated = np.tile(offsets, math.prod(a.stride for a in axes))
            operands.append(rw.constant(repeated, _name(node, "bias")))
        conv = Conv(pads=pads if any(pads) else (), clamp=op.clamp)
        value = _ranged(rw.op(conv, *operands, name=f"{node.name}_conv"), range_)
        shuffle = _Shuffle(rw, range_, [a.stride for a in axes], weight.shape[1])
        return shuffle.by_axis(value) if by_axis else shuffle.at_once(value, known)


def _name(node: Node[ConvTranspose], operand: str) -> str:
    return f"{node.need(operand).name}_phases"


@dataclass(frozen=True)
class _Axis:
    """One spatial axis: tap k goes to ``phases[k]``, where it reads x at ``places[k]``.

    ``window`` places are read for a block, of x with ``begin`` and ``end`` zeros around it.
    """

    stride: int
    phases: tuple[int, ...]
    places: tuple[int, ...]
    window: int
    begin: int
    end: int


def _axes(op: ConvTranspose, weight: Array) -> list[_Axis] | None:
    """What becomes of each axis; None where the result ends within a block of phases."""
    count = weight.ndim - 2
    pads = (0,) * (2 * count) if op.auto_pad == "VALID" else spatial(op.pads, 2 * count, 0, "pads")
    strides = spatial(op.strides, count, 1, "strides")
    dilations = spatial(op.dilations, count, 1, "dilations")
    extras = spatial(op.output_padding, count, 0, "output_padding")
    axes: list[_Axis] = []
    for i, (stride, dilation, extra) in enumerate(zip(strides, dilations, extras, strict=True)):
        before, after, reach = pads[i], pads[count + i], (weight.shape[2 + i] - 1) * dilation
        # the result has stride * (size + more) elements
        more, cut = divmod(extra + reach + 1 - before - after - stride, stride)
        if cut:
            return None
        spots = [k * dilation - before for k in range(weight.shape[2 + i])]
        moved = [-(spot // stride) for spot in spots]
        first, last = min(0, *moved), max(0, -more, *moved)
        phases = tuple(spot % stride for spot in spots)
        places = tuple(place - first for place in moved)
        axes.append(_Axis(stride, phases, places, last - first + 1, -first, more + last))
    return axes


def _by_phase(weight: Array, axes: Sequence[_Axis], order: Sequence[int]) -> Array:
    """The weight IO... of the transposed convolution as [phases * O, I, window...]."""
    inputs, outputs, *kernel = weight.shape
    windows = [a.window for a in axes]
    out = np.zeros((*(axes[i].stride for i in order), outputs, inputs, *windows), weight.dtype)
    for tap in np.ndindex(*kernel):
        phases = [axis.phases[k] for axis, k in zip(axes, tap, strict=True)]
        places = [axis.places[k] for axis, k in zip(axes, tap, strict=True)]
        at: Any = (*(phases[i] for i in order), slice(None), slice(None), *places)
        out[at] = weight[(slice(None), slice(None), *tap)].T
    return out.reshape(-1, inputs, *windows)


@dataclass
class _Shuffle:
    """Lays phases, the slowest part of the channels, side by side along the spatial axes.

    It is done with channels last, as integer convolutions run: onnxruntime then needs neither the
    first nor the last transpose.
    """

    rw: Rewriter
    range: Range
    strides: Sequence[int]
    channels: int

    def at_once(self, value: Value, sizes: Sequence[int]) -> Value:
        """All axes by one transpose; ``sizes`` of the result are numbers but for one -1."""
        count, strides = len(self.strides), self.strides
        if max(strides) == 1:
            return value
        value = self._op(Transpose(perm=(0, *range(2, count + 2), 1)), value)
        if count > 1:
            split = [*[0] * (count + 1), *strides[:-1], strides[-1] * self.channels]
            value = self._reshape(value, split)
            pairs = [axis for i in range(1, count) for axis in (i, count + i)]
            value = self._op(Transpose(perm=(0, *pairs, count, 2 * count)), value)
        value = self._reshape(value, [0, *sizes, self.channels])
        return self._op(Transpose(perm=(0, count + 1, *range(1, count + 1))), value)

    def by_axis(self, value: Value) -> Value:
        """Two axes of unknown sizes, one after the other: each Reshape leaves one size open."""
        rows = self.strides[0]
        value = self._op(Transpose(perm=(0, 2, 3, 1)), value)
        value = self._reshape(value, [0, 0, -1, rows * self.channels])
        value = self._reshape(value, [0, 0, 0, rows, self.channels])
        value = self._op(Transpose(perm=(0, 2, 1, 3, 4)), value)
        value = self._reshape(value, [0, 0, -1, self.channels])
        return self._op(Transpose(perm=(0, 3, 2, 1)), value)

    def _reshape(self, value: Value, shape: Sequence[int]) -> Value:
        return self._op(Reshape(), value, self.rw.constant(np.array(shape, np.int64)))

    def _op(self, op: Any, *operands: Value) -> Value:
        return _ranged(self.rw.op(op, *operands), self.range)


def _ranged(value: Value, range_: Range) -> Value:
    value.type = value.tensor.with_range(range_)
    return value
