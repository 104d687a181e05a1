"""Convolutions, and what is built on them."""

from __future__ import annotations

from typing import Literal

from qdqc.ir.dims import Dim, product
from qdqc.ir.op import Kind, Onnx, Op, QuantTraits
from qdqc.ir.types import Elem, TensorType
from qdqc.ops.inference import (
    AutoPad,
    dims_operand,
    known,
    need_rank,
    same_elem,
    spatial,
    whole_numbers,
    window_dims,
)

__all__ = [
    "CausalConvWithState",
    "Col2Im",
    "Conv",
    "ConvTranspose",
    "Convolution",
    "DeformConv",
]


def _times(a: Dim, b: int) -> Dim:
    return None if a is None else a * b


def _check_group(group: int) -> None:
    if group < 1:
        raise ValueError(f"group {group} needs to be 1 or more")


def _check_bias(bias: TensorType | None, channels: Dim) -> None:
    """A bias holds one number per output channel."""
    if bias is None:
        return
    need_rank(bias, "bias", 1)
    size = None if bias.shape is None else bias.shape[0]
    if isinstance(size, int) and isinstance(channels, int) and size != channels:
        raise ValueError(f"bias has {size} entries, but there are {channels} output channels")


def _check_ranks(x: tuple[Dim, ...], weight: tuple[Dim, ...]) -> None:
    if len(x) != len(weight) or len(x) < 3:
        raise ValueError(
            f"x has rank {len(x)} and weight rank {len(weight)}; both need the same rank, 3 or more"
        )


class Convolution(Op):
    """What the convolutions of floats and of integers share: attributes, and the result's shape."""

    pads: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    group: int = 1
    auto_pad: AutoPad = "NOTSET"

    def result_shape(
        self, x: TensorType, weight: TensorType, bias: TensorType | None = None
    ) -> tuple[Dim, ...] | None:
        """The shape of x convolved; x is NC..., weight is OI... Raises ValueError."""
        _check_group(self.group)
        _check_bias(bias, weight.shape[0] if weight.shape else None)
        if x.shape is None or weight.shape is None:
            return None
        _check_ranks(x.shape, weight.shape)
        self._check_channels(x.shape[1], weight.shape)
        dims = window_dims(
            x.shape[2:],
            weight.shape[2:],
            strides=self.strides,
            dilations=self.dilations,
            pads=self.pads,
            auto_pad=self.auto_pad,
        )
        return (x.shape[0], weight.shape[0], *dims)

    def _check_channels(self, channels: Dim, weight: tuple[Dim, ...]) -> None:
        taken = weight[1]
        if isinstance(channels, int) and isinstance(taken, int) and channels != taken * self.group:
            raise ValueError(
                f"weight takes {taken * self.group} input channels, but x has {channels}"
            )
        if isinstance(weight[0], int) and weight[0] % self.group:
            raise ValueError(
                f"weight gives {weight[0]} channels, which do not make {self.group} groups"
            )


class Conv(Convolution):
    """N-d convolution; x is NC..., weight is OI..., bias may be absent.

    Empty ``pads``, ``strides`` and ``dilations`` stand for zeros and ones. ``clamp`` is a fused
    activation: Relu is [0, inf], Relu6 [0, 6].
    """

    name = "conv"
    operands = ("x", "weight", "bias?")
    results = ("y",)
    onnx = Onnx("Conv", ignored=("kernel_shape",))

    clamp: tuple[float, float] | None = None

    def infer(
        self, x: TensorType, weight: TensorType, bias: TensorType | None = None
    ) -> tuple[TensorType]:
        same_elem(x=x, weight=weight, bias=bias)
        return (TensorType(x.elem, self.result_shape(x, weight, bias)),)

    def quant(
        self, x: TensorType, weight: TensorType, bias: TensorType | None = None
    ) -> QuantTraits:
        if x.elem is not Elem.F32:
            return QuantTraits()
        return QuantTraits(Kind.WEIGHTED, weight=1, bias=2, axis=0)


class ConvTranspose(Op):
    """N-d transposed convolution; x is NC..., weight is IO... (O per group)."""

    name = "conv_transpose"
    operands = ("x", "weight", "bias?")
    results = ("y",)
    onnx = Onnx("ConvTranspose", ignored=("kernel_shape",))

    pads: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    output_padding: tuple[int, ...] = ()
    output_shape: tuple[int, ...] = ()
    group: int = 1
    auto_pad: AutoPad = "NOTSET"
    clamp: tuple[float, float] | None = None

    def infer(
        self, x: TensorType, weight: TensorType, bias: TensorType | None = None
    ) -> tuple[TensorType]:
        same_elem(x=x, weight=weight, bias=bias)
        _check_group(self.group)
        channels = self._channels(weight)
        _check_bias(bias, channels)
        if x.shape is None or weight.shape is None:
            return (TensorType(x.elem, None),)
        _check_ranks(x.shape, weight.shape)
        self._check_channels(x.shape[1], weight.shape[0])
        dims = [self._dim(i, x.shape, weight.shape) for i in range(len(x.shape) - 2)]
        return (TensorType(x.elem, (x.shape[0], channels, *dims)),)

    def _channels(self, weight: TensorType) -> Dim:
        """Output channels; the weight holds those of one group."""
        if weight.shape is None or len(weight.shape) < 3:
            return None
        return _times(weight.shape[1], self.group)

    def _check_channels(self, channels: Dim, taken: Dim) -> None:
        if not isinstance(channels, int):
            return
        if isinstance(taken, int) and channels != taken:
            raise ValueError(f"weight takes {taken} input channels, but x has {channels}")
        if channels % self.group:
            raise ValueError(f"x has {channels} channels, which do not make {self.group} groups")

    def _dim(self, i: int, x: tuple[Dim, ...], weight: tuple[Dim, ...]) -> Dim:
        count = len(x) - 2
        if self.output_shape:
            return spatial(self.output_shape, count, 0, "output_shape")[i]
        size, kernel = x[2 + i], weight[2 + i]
        if size is None or kernel is None:
            return None
        stride = spatial(self.strides, count, 1, "strides")[i]
        dilation = spatial(self.dilations, count, 1, "dilations")[i]
        if stride < 1 or dilation < 1:
            raise ValueError(f"stride {stride} and dilation {dilation} need to be 1 or more")
        extra = spatial(self.output_padding, count, 0, "output_padding")[i]
        if self.auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            # ONNX says size * stride; runtimes pad nothing where a window falls short of it.
            short = extra + (kernel - 1) * dilation + 1 - stride
            return size * stride + (min(0, short) if isinstance(short, int) else 0)
        pads = spatial(self.pads, 2 * count, 0, "pads")
        both = 0 if self.auto_pad == "VALID" else pads[i] + pads[count + i]
        out = (size - 1) * stride + extra + (kernel - 1) * dilation + 1 - both
        if isinstance(out, int) and out < 0:
            raise ValueError(f"pads leave {out} elements along axis {2 + i}")
        return out

    def quant(
        self, x: TensorType, weight: TensorType, bias: TensorType | None = None
    ) -> QuantTraits:
        if x.elem is not Elem.F32:
            return QuantTraits()
        return QuantTraits(Kind.WEIGHTED, weight=1, bias=2, axis=1)


class DeformConv(Op):
    """Convolution whose taps read x beside the grid, each moved by ``offset`` times ``mask``.

    x is NC..., weight is OI...; offset is [N, offset_group * taps * dimensions, out...] and the
    mask [N, offset_group * taps, out...], a factor for each tap. Sizes are those of Conv.
    """

    name = "deform_conv"
    operands = ("x", "weight", "offset", "bias?", "mask?")
    onnx = Onnx("DeformConv", since=19, ignored=("kernel_shape",))

    pads: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    group: int = 1
    offset_group: int = 1

    def infer(
        self,
        x: TensorType,
        weight: TensorType,
        offset: TensorType,
        bias: TensorType | None = None,
        mask: TensorType | None = None,
    ) -> tuple[TensorType]:
        same_elem(x=x, weight=weight, offset=offset, bias=bias, mask=mask)
        conv = Conv(
            pads=self.pads, strides=self.strides, dilations=self.dilations, group=self.group
        )
        return conv.infer(x, weight, bias)


class Col2Im(Op):
    """Blocks of an image, each a column of x, added up at their places in the image.

    x is [N, C * elements of a block, blocks]; the result is [N, C, *image_shape]. Shapes of image
    and block are i64 operands; the blocks lie as the windows of a convolution do.
    """

    name = "col2im"
    operands = ("x", "image_shape", "block_shape")
    onnx = Onnx("Col2Im", since=18)

    pads: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()

    def infer(
        self, x: TensorType, image_shape: TensorType, block_shape: TensorType
    ) -> tuple[TensorType]:
        need_rank(x, "x", 3)
        image, block = dims_operand(image_shape, "image_shape"), whole_numbers(block_shape)
        dims_operand(block_shape, "block_shape")
        if image is None:
            return (TensorType(x.elem, None),)
        if block is not None and len(block) != len(image):
            raise ValueError(f"block_shape has {len(block)} entries, image_shape {len(image)}")
        batch, rows = (None, None) if x.shape is None else x.shape[:2]
        size = None if block is None else product(block)
        channels: Dim = None
        if isinstance(size, int) and size > 0 and rows is not None:
            channels = rows // size
            if isinstance(rows, int) and rows % size:
                raise ValueError(f"x has columns of {rows}, which are not blocks of {size}")
        return (TensorType(x.elem, (batch, channels, *image)),)


class CausalConvWithState(Op):
    """Each channel of x [N, C, length] convolved with its own row of weight [C, 1, k].

    A result sees no later element: k - 1 elements stand in front of x, those of ``past_state``
    [N, C, k - 1] or zeros. The second result is the state for what follows. ``activation`` may
    be a fused ``silu`` or ``swish``.
    """

    name = "causal_conv_with_state"
    operands = ("x", "weight", "bias?", "past_state?")
    results = ("y", "present_state")
    onnx = Onnx("CausalConvWithState", since=27)

    activation: Literal["none", "silu", "swish"] = "none"

    def infer(
        self,
        x: TensorType,
        weight: TensorType,
        bias: TensorType | None = None,
        past_state: TensorType | None = None,
    ) -> tuple[TensorType, TensorType]:
        same_elem(x=x, weight=weight, bias=bias, past_state=past_state)
        need_rank(x, "x", 3)
        need_rank(weight, "weight", 3)
        batch, channels = (None, None) if x.shape is None else x.shape[:2]
        _check_bias(bias, channels)
        kernel = None if weight.shape is None else weight.shape[2]
        state: tuple[Dim, ...] = (batch, channels, None if kernel is None else kernel - 1)
        if past_state is not None:
            need_rank(past_state, "past_state", 3)
            state = tuple(map(known, state, past_state.shape or state))
        return (TensorType(x.elem, x.shape), TensorType(x.elem, state))
