"""Convolutions."""

from __future__ import annotations

from compiler.ir.dims import Dim
from compiler.ir.op import Kind, Onnx, Op, QuantTraits
from compiler.ir.types import Elem, TensorType
from compiler.ops.inference import need_rank, same_elem, spatial, window_dim

__all__ = ["Conv", "ConvTranspose"]


class Conv(Op):
    """N-d convolution; x is NC..., weight is OI..., bias may be absent.

    Empty ``pads``, ``strides`` and ``dilations`` stand for zeros and ones. ``clamp`` is a fused
    activation: Relu is [0, inf], Relu6 [0, 6].
    """

    name = "conv"
    operands = ("x", "weight", "bias?")
    results = ("y",)
    onnx = Onnx("Conv", ignored=("kernel_shape",))

    pads: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    group: int = 1
    auto_pad: str = "NOTSET"
    clamp: tuple[float, float] | None = None

    def infer(
        self, x: TensorType, weight: TensorType, bias: TensorType | None = None
    ) -> tuple[TensorType]:
        same_elem(x=x, weight=weight, bias=bias)
        if bias is not None:
            need_rank(bias, "bias", 1)
        if x.shape is None or weight.shape is None:
            return (TensorType(x.elem, None),)
        if len(x.shape) != len(weight.shape) or len(x.shape) < 3:
            raise ValueError(
                f"x has rank {len(x.shape)} and weight rank {len(weight.shape)}; "
                "both need the same rank, 3 or more"
            )
        self._check_channels(x.shape[1], weight.shape)
        count = len(x.shape) - 2
        pads = spatial(self.pads, 2 * count, 0, "pads")
        strides = spatial(self.strides, count, 1, "strides")
        dilations = spatial(self.dilations, count, 1, "dilations")
        dims = [
            window_dim(
                x.shape[2 + i],
                weight.shape[2 + i],
                stride=strides[i],
                dilation=dilations[i],
                pads=(pads[i], pads[count + i]),
                auto_pad=self.auto_pad,
            )
            for i in range(count)
        ]
        return (TensorType(x.elem, (x.shape[0], weight.shape[0], *dims)),)

    def _check_channels(self, channels: Dim, weight: tuple[Dim, ...]) -> None:
        taken = weight[1]
        if isinstance(channels, int) and isinstance(taken, int) and channels != taken * self.group:
            raise ValueError(
                f"weight takes {taken * self.group} input channels, but x has {channels}"
            )

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
    auto_pad: str = "NOTSET"
    clamp: tuple[float, float] | None = None

    def infer(
        self, x: TensorType, weight: TensorType, bias: TensorType | None = None
    ) -> tuple[TensorType]:
        same_elem(x=x, weight=weight, bias=bias)
        if x.shape is None or weight.shape is None:
            return (TensorType(x.elem, None),)
        if len(x.shape) != len(weight.shape) or len(x.shape) < 3:
            raise ValueError("x and weight need the same rank, 3 or more")
        channels = None if weight.shape[1] is None else weight.shape[1] * self.group
        dims = [self._dim(i, x.shape, weight.shape) for i in range(len(x.shape) - 2)]
        return (TensorType(x.elem, (x.shape[0], channels, *dims)),)

    def _dim(self, i: int, x: tuple[Dim, ...], weight: tuple[Dim, ...]) -> Dim:
        count = len(x) - 2
        if self.output_shape:
            return self.output_shape[-count:][i]
        size, kernel = x[2 + i], weight[2 + i]
        if size is None or kernel is None:
            return None
        stride = spatial(self.strides, count, 1, "strides")[i]
        dilation = spatial(self.dilations, count, 1, "dilations")[i]
        extra = spatial(self.output_padding, count, 0, "output_padding")[i]
        if self.auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            return size * stride
        pads = spatial(self.pads, 2 * count, 0, "pads")
        both = 0 if self.auto_pad == "VALID" else pads[i] + pads[count + i]
        return (size - 1) * stride + extra + (kernel - 1) * dilation + 1 - both

    def quant(
        self, x: TensorType, weight: TensorType, bias: TensorType | None = None
    ) -> QuantTraits:
        if x.elem is not Elem.F32:
            return QuantTraits()
        return QuantTraits(Kind.WEIGHTED, weight=1, bias=2, axis=1)
