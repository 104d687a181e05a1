"""What onnxruntime's kernels cost on x64 with VNNI, in microseconds: formulas fitted to profiles.

Measured with onnxruntime 1.32 on one thread of a Zen 4 at 7x7 to 120x160 pixels and 1 to 512
channels; most kernels are met within 15 %. A profiler adds 2 us to each kernel: what a call costs
is from whole models without one. They say where integers do not pay, not how long a model takes:
what is near is left to a search that measures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from qdqc.ir.core import Constant, Node, Value
from qdqc.ops import (
    Add,
    Clip,
    Conv,
    Gemm,
    HardSwish,
    LeakyRelu,
    MatMul,
    MaxPool,
    Mul,
    Relu,
    Sigmoid,
    Tanh,
)
from qdqc.quant.lines import line_of

__all__ = ["OrtCpuCosts"]

_BLOCK = 16
"""Channels of a block of the float layout."""
_IMAGE = 4

_EACH: Mapping[str, tuple[float, float]] = {
    "add": (0.16, 0.16),
    "average_pool": (0.065, 0.78),
    "clip": (0.16, 0.0),
    "concat": (0.20, 0.065),
    "global_average_pool": (0.065, 0.045),
    "hard_sigmoid": (0.31, 0.20),
    "hard_swish": (0.31, 0.45),
    "leaky_relu": (0.16, 0.26),
    "max_pool": (0.20, 0.20),
    "mul": (0.16, 0.23),
    "relu": (0.16, 0.0),
    "resize": (0.23, 0.04),
    "sigmoid": (0.32, 0.26),
    "swish": (0.30, 0.48),
    "transpose": (0.15, 0.07),
}
"""Nanoseconds an element of the largest operand, in float and in integers."""

_ALONE = 4.0
"""Nanoseconds an element more that an integer pool takes that does not stand in a chain."""

_GROUPED = ((2, 0.18), (4, 0.38), (8, 0.8), (16, 0.85), (32, 1.85), (64, 2.8))
"""Channels a group, and float time over integer time of such a convolution."""

_QUANTIZE, _DEQUANTIZE, _REORDER = 0.13, 0.12, 0.12
"""Nanoseconds an element of a cast, and of a change to or from the layout of float images."""
_CALL = 1.0
"""Microseconds to call a kernel amid others, about twice what it is in a chain of its like."""
_READ = 0.07, 0.03
"""Nanoseconds that a product takes to read a weight, in float and in integers, however few rows."""


class OrtCpuCosts:
    """Costs of nodes and of casts; ``sizes`` are shapes of values by name, all known."""

    def node(
        self, node: Node[Any], sizes: Mapping[str, tuple[int, ...]]
    ) -> tuple[float, float] | None:
        """Microseconds in float and in integers; None where nothing is known."""
        shapes = [sizes.get(v.name) for v in (*node.present_operands, *node.present_results)]
        if any(shape is None for shape in shapes[:1]) or sizes.get(node.name) is None:
            return None
        if isinstance(node.op, Conv):
            return _conv(node, sizes[node.name])
        if isinstance(node.op, MatMul | Gemm):
            return _product(node, sizes[node.name])
        each = _EACH.get(node.op.name)
        if each is None:
            return None
        size = max(math.prod(shape) for shape in shapes if shape is not None)
        exact = 0.0 if _is_absorbed(node) else _CALL + size * each[0] * 1e-3
        if _leaves_blocks(node, shapes):
            exact += 2 * (_CALL + size * _REORDER * 1e-3)
        integer = _CALL + size * each[1] * 1e-3
        if line_of(node) is not None:  # another scale, and no kernel
            integer = 0.0
        elif isinstance(node.op, MaxPool) and not _lies_between(node):
            integer += size * _ALONE * 1e-3
        return exact, integer

    def quantized(self, value: Value, shape: tuple[int, ...]) -> float:
        """Microseconds of a cast to integers."""
        return self._cast(value, shape, _QUANTIZE)

    def dequantized(self, value: Value, shape: tuple[int, ...]) -> float:
        """Microseconds of a cast to float."""
        return self._cast(value, shape, _DEQUANTIZE)

    def _cast(self, value: Value, shape: tuple[int, ...], each: float) -> float:
        size = math.prod(shape)
        neighbours = [n for n in (value.producer, *value.users) if n is not None]
        blocks = len(shape) == _IMAGE and any(isinstance(n.op, Conv) for n in neighbours)
        reorder = _CALL + size * _REORDER * 1e-3 if blocks else 0.0
        return _CALL + size * each * 1e-3 + reorder


def _conv(node: Node[Any], shape: tuple[int, ...]) -> tuple[float, float] | None:
    """Dense, depthwise and grouped convolutions of one or two axes."""
    weight = node.at(1)
    if not isinstance(weight, Constant) or len(weight.data.shape) < 3:
        return None
    out, each, *kernel = weight.data.shape
    places = math.prod(shape) / shape[1] / 1e3
    taps, group = math.prod(kernel), node.op.group
    if group > 1 and each == 1 and group == out:
        return _depthwise(out, taps, places)
    blocks = _up(out, _BLOCK)
    exact = 0.5 + places * blocks * (0.0171 * taps * each + 0.046)
    if group > 1:
        ratio = next((r for width, r in reversed(_GROUPED) if each >= width), 0.15)
        return exact, exact / ratio
    integer = 0.0042 * blocks * _up(taps * each, 4) + 0.076 * out + 1.8
    if taps > 1:
        rows, row = kernel[0] if len(kernel) > 1 else 1, kernel[-1] * each
        integer += 1.4 * rows + 0.033 * taps * each + (4.6 * rows if row % 4 else 0.0)
    integer += 0.147 * out if out % _BLOCK else 0.0
    return exact, 0.8 + places * integer


def _depthwise(channels: int, taps: int, places: float) -> tuple[float, float]:
    """Channels that fill no blocks have no vector kernel in integers."""
    exact = 0.5 + places * _up(channels, _BLOCK) * (0.0168 * taps + 0.06)
    each = 0.0258 if channels % _BLOCK == 0 else 0.07
    integer = each * max(channels, _BLOCK) * taps + 0.92 * taps + 0.088 * channels
    return exact, 1.0 + places * integer


def _product(node: Node[Any], shape: tuple[int, ...]) -> tuple[float, float] | None:
    """Products of a row or more with a matrix."""
    weight = node.at(1)
    if not isinstance(weight, Constant) or len(weight.data.shape) != 2:
        return None
    work = math.prod(weight.data.shape)
    rows = math.prod(shape) // max(1, shape[-1])
    depth = work // max(1, shape[-1])
    exact = 0.4 + work * max(rows * 0.0171, _READ[0]) * 1e-3
    integer = 1.3 + work * max(rows * 0.0042, _READ[1]) * 1e-3
    return exact, integer + rows * (depth + shape[-1]) * 0.13e-3


def _is_absorbed(node: Node[Any]) -> bool:
    """Whether a float convolution takes an activation in, as its only reader."""
    if not isinstance(node.op, Clip | HardSwish | LeakyRelu | Relu | Sigmoid | Tanh):
        return False
    source = node.at(0)
    maker = source.producer if source is not None else None
    return maker is not None and isinstance(maker.op, Conv) and len(maker.result.users) == 1


def _lies_between(node: Node[Any]) -> bool:
    """Whether a pool stands between convolutions, whose layout its integer kernel needs."""
    source = node.at(0)
    maker = source.producer if source is not None else None
    ends = maker is not None and isinstance(maker.op, Conv)
    return ends and any(isinstance(n.op, Conv) for n in node.result.users)


def _leaves_blocks(node: Node[Any], shapes: list[tuple[int, ...] | None]) -> bool:
    """Whether a float product or sum of images and other shapes stands beside a convolution.

    It has no kernel for blocks of channels, out of which and into which images go around it.
    """
    whole = {shape for shape in shapes if shape is not None}
    if not isinstance(node.op, Add | Mul) or len(whole) == 1 or len(shapes[-1] or ()) != _IMAGE:
        return False
    beside = [*(v.producer for v in node.present_operands), *node.result.users]
    return any(n is not None and isinstance(n.op, Conv) for n in beside)


def _up(count: int, step: int) -> int:
    return -(-count // step) * step
