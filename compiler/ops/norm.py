"""Normalizations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qdqc.ir.dims import Dim
from qdqc.ir.op import Onnx, Op
from qdqc.ir.types import Elem, TensorType
from qdqc.ops.cast import Cast
from qdqc.ops.elementwise import Add, Div, Mul, Pow, Sub
from qdqc.ops.inference import axes_in, axis_in, need_broadcast, need_rank, same_elem
from qdqc.ops.pointwise import Pointwise
from qdqc.ops.reduce import ReduceMean
from qdqc.ops.shape import Reshape, Shape
from qdqc.ops.unary import Sqrt

if TYPE_CHECKING:
    from qdqc.ir.core import Value
    from qdqc.ir.expansion import Parts

__all__ = [
    "LRN",
    "BatchNormalization",
    "GroupNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "LpNormalization",
    "MeanVarianceNormalization",
    "RMSNormalization",
]


def _channels(x: TensorType) -> Dim:
    if x.shape is None:
        return None
    if len(x.shape) < 2:
        raise ValueError(f"x has rank {len(x.shape)}, but rank 2 or more is needed")
    return x.shape[1]


def _per_channel(channels: Dim, **operands: TensorType) -> None:
    """Check operands that hold one number per channel."""
    for name, type in operands.items():
        need_rank(type, name, 1)
        size = None if type.shape is None else type.shape[0]
        if isinstance(size, int) and isinstance(channels, int) and size != channels:
            raise ValueError(f"{name} has {size} entries, but x has {channels} channels")


_HALVES = (Elem.F16, Elem.BF16)


def _widened(parts: Parts, x: Value, stash_type: int) -> Value:
    """x in float32 where the statistics of a narrower type are taken in it."""
    return parts.op(Cast(to="f32"), x) if stash_type == 1 and parts.elem in _HALVES else x


def _narrowed(parts: Parts, x: Value, wide: Value) -> Value:
    return x if wide.tensor.elem is parts.elem else parts.op(Cast(to=parts.elem.text), x)


def _rescaled(parts: Parts, x: Value, axes: tuple[int, ...], epsilon: float) -> Value:
    """x / sqrt(mean(x^2) + epsilon), as PyTorch writes it, which runtimes look for."""
    elem = x.tensor.elem
    squares = parts.op(Pow(), x, parts.number(2.0, "two", elem))
    mean = parts.op(ReduceMean(axes=axes), squares)
    shifted = parts.op(Add(), mean, parts.number(epsilon, "epsilon", elem))
    return parts.op(Div(), x, parts.op(Sqrt(), shifted))


class BatchNormalization(Op):
    """(x - mean) / sqrt(var + epsilon) * scale + bias per channel of NC..., as inference has it."""

    name = "batch_normalization"
    operands = ("x", "scale", "bias", "mean", "var")
    onnx = Onnx(
        "BatchNormalization",
        ignored=("momentum", "spatial", "is_test", "consumed_inputs"),
    )

    epsilon: float = 1e-5

    def infer(
        self,
        x: TensorType,
        scale: TensorType,
        bias: TensorType,
        mean: TensorType,
        var: TensorType,
    ) -> tuple[TensorType]:
        # A network for vectors may normalize a tensor of rank 1: one channel.
        channels = 1 if x.rank == 1 else _channels(x)
        _per_channel(channels, scale=scale, bias=bias, mean=mean, var=var)
        return (TensorType(x.elem, x.shape),)


class InstanceNormalization(Op):
    """Zero mean and unit variance per image and channel, then scale and bias per channel."""

    name = "instance_normalization"
    operands = ("x", "scale", "bias")
    onnx = Onnx("InstanceNormalization")

    epsilon: float = 1e-5

    def infer(self, x: TensorType, scale: TensorType, bias: TensorType) -> tuple[TensorType]:
        same_elem(x=x, scale=scale, bias=bias)
        _per_channel(_channels(x), scale=scale, bias=bias)
        return (TensorType(x.elem, x.shape),)


class GroupNormalization(Op):
    """Zero mean and unit variance per image and group of channels, then scale and bias."""

    name = "group_normalization"
    operands = ("x", "scale", "bias")
    onnx = Onnx("GroupNormalization", since=21)

    num_groups: int
    epsilon: float = 1e-5
    stash_type: int = 1

    def infer(self, x: TensorType, scale: TensorType, bias: TensorType) -> tuple[TensorType]:
        same_elem(x=x, scale=scale, bias=bias)
        channels = _channels(x)
        _per_channel(channels, scale=scale, bias=bias)
        if self.num_groups < 1 or (isinstance(channels, int) and channels % self.num_groups):
            raise ValueError(f"{channels} channels do not make {self.num_groups} groups")
        return (TensorType(x.elem, x.shape),)

    def expand(self, parts: Parts, x: Value, scale: Value, bias: Value) -> Value | None:
        """Every group becomes a channel of an instance normalization, then scale and bias."""
        rank = x.tensor.rank
        if rank is None:
            return None
        groups = parts.op(Reshape(), x, parts.shape(0, self.num_groups, -1))
        ones = parts.number([1.0] * self.num_groups, "ones")
        zeros = parts.number([0.0] * self.num_groups, "zeros")
        normal = parts.op(InstanceNormalization(epsilon=self.epsilon), groups, ones, zeros)
        static = x.tensor.static_shape
        shape = parts.op(Shape(), x) if static is None else parts.shape(*static)
        column = parts.shape(-1, *[1] * (rank - 2))
        scaled = parts.op(
            Mul(), parts.op(Reshape(), normal, shape), parts.op(Reshape(), scale, column)
        )
        return parts.op(Add(), scaled, parts.op(Reshape(), bias, column))


class LayerNormalization(Op):
    """Zero mean and unit variance over the axes from ``axis`` on, then scale and bias.

    Mean and inverse deviation, float32, are optional results.
    """

    name = "layer_normalization"
    operands = ("x", "scale", "bias?")
    results = ("y", "mean?", "inv_std_dev?")
    onnx = Onnx("LayerNormalization", since=17)

    axis: int = -1
    epsilon: float = 1e-5
    stash_type: int = 1

    def infer(
        self, x: TensorType, scale: TensorType, bias: TensorType | None = None
    ) -> tuple[TensorType, TensorType, TensorType]:
        statistics = TensorType(Elem.F32, None)
        if x.shape is not None:
            axis = axis_in(self.axis, len(x.shape))
            need_broadcast(scale, "scale", x.shape)
            if bias is not None:
                need_broadcast(bias, "bias", x.shape)
            ones = (1,) * (len(x.shape) - axis)
            statistics = TensorType(Elem.F32, (*x.shape[:axis], *ones))
        return (TensorType(x.elem, x.shape), statistics, statistics)

    def expand(
        self, parts: Parts, x: Value, scale: Value, bias: Value | None = None
    ) -> Value | None:
        """(x - mean(x)) / sqrt(variance(x) + epsilon) * scale + bias."""
        axes = parts.axes(self.axis)
        if axes is None or any(r is not None for r in parts.node.results[1:]):
            return None
        wide = _widened(parts, x, self.stash_type)
        centred = parts.op(Sub(), wide, parts.op(ReduceMean(axes=axes), wide))
        normal = _rescaled(parts, centred, axes, self.epsilon)
        scaled = parts.op(Mul(), _narrowed(parts, normal, wide), scale)
        return scaled if bias is None else parts.op(Add(), scaled, bias)


class RMSNormalization(Op):
    """x over its root mean square along the axes from ``axis`` on, times scale."""

    name = "rms_normalization"
    operands = ("x", "scale")
    onnx = Onnx("RMSNormalization", since=23)

    axis: int = -1
    epsilon: float = 1e-5
    stash_type: int = 1

    def infer(self, x: TensorType, scale: TensorType) -> tuple[TensorType]:
        if x.shape is not None:
            axis_in(self.axis, len(x.shape))
            need_broadcast(scale, "scale", x.shape)
        return (TensorType(scale.elem, x.shape),)

    def expand(self, parts: Parts, x: Value, scale: Value) -> Value | None:
        """x / sqrt(mean(x^2) + epsilon) * scale."""
        axes = parts.axes(self.axis)
        if axes is None or scale.tensor.elem is not parts.elem:
            return None
        wide = _widened(parts, x, self.stash_type)
        normal = _rescaled(parts, wide, axes, self.epsilon)
        return parts.op(Mul(), _narrowed(parts, normal, wide), scale)


class LRN(Pointwise):
    """x over a power of the sum of squares of ``size`` neighbouring channels."""

    name = "lrn"
    onnx = Onnx("LRN")
    elementwise = False

    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    bias: float = 1.0

    def infer(self, x: TensorType) -> tuple[TensorType]:
        if self.size < 1 or self.size % 2 == 0:
            raise ValueError(f"size {self.size} needs to be odd and above 0")
        return super().infer(x)


class MeanVarianceNormalization(Pointwise):
    """Zero mean and unit variance over ``axes``."""

    name = "mean_variance_normalization"
    onnx = Onnx("MeanVarianceNormalization", since=9)
    elementwise = False

    axes: tuple[int, ...] = (0, 2, 3)

    def infer(self, x: TensorType) -> tuple[TensorType]:
        if x.shape is not None:
            axes_in(self.axes, len(x.shape))
        return (TensorType(x.elem, x.shape),)


class LpNormalization(Pointwise):
    """x over its norm of order ``p`` along ``axis``."""

    name = "lp_normalization"
    onnx = Onnx("LpNormalization")
    elementwise = False

    axis: int = -1
    p: int = 2

    def infer(self, x: TensorType) -> tuple[TensorType]:
        if x.shape is not None:
            axis_in(self.axis, len(x.shape))
        return (TensorType(x.elem, x.shape),)
