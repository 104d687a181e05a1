"""Pooling over windows and over whole images; x is NC... throughout."""

from __future__ import annotations

from qdqc.ir.dims import Dim
from qdqc.ir.op import Kind, Onnx, Op, QuantTraits
from qdqc.ir.types import Elem, TensorType
from qdqc.ops.inference import (
    AutoPad,
    dims_operand,
    known,
    need_elem,
    need_rank,
    spatial,
    traits,
    window_dims,
)

__all__ = [
    "AveragePool",
    "GlobalAveragePool",
    "GlobalLpPool",
    "GlobalMaxPool",
    "LpPool",
    "MaxPool",
    "MaxUnpool",
    "Window",
]


class Window(Op):
    """What pooling over windows shares; empty attributes stand for zeros and ones."""

    operands = ("x",)

    kernel_shape: tuple[int, ...]
    pads: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    ceil_mode: bool = False
    auto_pad: AutoPad = "NOTSET"

    def pooled(self, x: TensorType) -> tuple[Dim, ...] | None:
        """The shape of the result."""
        count = len(self.kernel_shape)
        if not count:
            raise ValueError("kernel_shape is empty, but a size per spatial dimension is needed")
        if x.shape is None:
            return None
        if len(x.shape) != count + 2:
            raise ValueError(
                f"x has rank {len(x.shape)}, but a window of {count} dimensions needs {count + 2}"
            )
        dims = window_dims(
            x.shape[2:],
            self.kernel_shape,
            strides=self.strides,
            dilations=self.dilations,
            pads=self.pads,
            auto_pad=self.auto_pad,
            ceil=self.ceil_mode and self.auto_pad == "NOTSET",
        )
        return (*x.shape[:2], *dims)

    def drops_window(self, x: TensorType) -> bool:
        """Whether ``ceil_mode`` counts a last window that starts in the padding and is dropped.

        ONNX's shape inference counts such windows before opset 22; runtimes never had them.
        """
        shape = self.pooled(x) if self.ceil_mode and self.auto_pad == "NOTSET" else None
        if shape is None or x.shape is None:
            return False
        count = len(self.kernel_shape)
        pads = spatial(self.pads, 2 * count, 0, "pads")
        strides = spatial(self.strides, count, 1, "strides")
        dilations = spatial(self.dilations, count, 1, "dilations")
        for i, (size, windows) in enumerate(zip(x.shape[2:], shape[2:], strict=True)):
            if isinstance(size, int) and isinstance(windows, int):
                reach = dilations[i] * (self.kernel_shape[i] - 1) + 1
                span = size + pads[i] + pads[count + i] - reach
                if windows <= -(-span // strides[i]):
                    return True
        return False


class AveragePool(Window):
    """The mean of each window; padding counts with ``count_include_pad``."""

    name = "average_pool"
    onnx = Onnx("AveragePool", field_since={"ceil_mode": 10, "dilations": 19})

    count_include_pad: bool = False

    def infer(self, x: TensorType) -> tuple[TensorType]:
        return (TensorType(x.elem, self.pooled(x)),)

    def quant(self, x: TensorType) -> QuantTraits:
        return traits(x, Kind.ARITHMETIC)


class MaxPool(Window):
    """The largest element of each window, and optionally its index in the flattened x."""

    name = "max_pool"
    results = ("y", "indices?")
    onnx = Onnx("MaxPool", field_since={"ceil_mode": 10, "dilations": 10})

    storage_order: int = 0

    def infer(self, x: TensorType) -> tuple[TensorType, TensorType]:
        shape = self.pooled(x)
        return (TensorType(x.elem, shape), TensorType(Elem.I64, shape))

    def quant(self, x: TensorType) -> QuantTraits:
        return traits(x, Kind.PRESERVING)


class MaxUnpool(Op):
    """Each element of x at its index in the flattened result, zeros elsewhere.

    x and ``indices`` are the results of a MaxPool with these attributes; a size becomes
    (size - 1) * stride + kernel - pads, unless ``output_shape`` (i64) gives the whole shape.
    """

    name = "max_unpool"
    operands = ("x", "indices", "output_shape?")
    onnx = Onnx("MaxUnpool", since=9)

    kernel_shape: tuple[int, ...]
    pads: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()

    def infer(
        self, x: TensorType, indices: TensorType, output_shape: TensorType | None = None
    ) -> tuple[TensorType]:
        need_elem(indices, "indices", Elem.I64)
        count = len(self.kernel_shape)
        need_rank(x, "x", count + 2)
        need_rank(indices, "indices", count + 2)
        if output_shape is not None:
            given = dims_operand(output_shape, "output_shape")
            if given is not None and len(given) != count + 2:
                raise ValueError(f"output_shape has {len(given)} entries, not {count + 2}")
            return (TensorType(x.elem, given or (None,) * (count + 2)),)
        unknown: tuple[Dim, ...] = (None,) * (count + 2)
        shape = tuple(map(known, x.shape or unknown, indices.shape or unknown))
        pads = spatial(self.pads, 2 * count, 0, "pads")
        strides = spatial(self.strides, count, 1, "strides")
        dims = [
            None if size is None else (size - 1) * stride + kernel - begin - end
            for size, stride, kernel, begin, end in zip(
                shape[2:], strides, self.kernel_shape, pads[:count], pads[count:], strict=True
            )
        ]
        return (TensorType(x.elem, (*shape[:2], *dims)),)


class LpPool(Window):
    """The norm of order ``p`` of each window."""

    name = "lp_pool"
    onnx = Onnx("LpPool", field_since={"ceil_mode": 18, "dilations": 18})

    p: int = 2

    def infer(self, x: TensorType) -> tuple[TensorType]:
        return (TensorType(x.elem, self.pooled(x)),)


class _Global(Op):
    """What pooling over whole images shares."""

    operands = ("x",)

    def infer(self, x: TensorType) -> tuple[TensorType]:
        if x.shape is None:
            return (TensorType(x.elem, None),)
        if len(x.shape) < 2:
            raise ValueError(f"x has rank {len(x.shape)}, but rank 2 or more is needed")
        return (TensorType(x.elem, (*x.shape[:2], *(1,) * (len(x.shape) - 2))),)


class GlobalAveragePool(_Global):
    """The mean of each channel."""

    name = "global_average_pool"
    onnx = Onnx("GlobalAveragePool")

    def quant(self, x: TensorType) -> QuantTraits:
        return traits(x, Kind.ARITHMETIC)


class GlobalMaxPool(_Global):
    """The largest element of each channel."""

    name = "global_max_pool"
    onnx = Onnx("GlobalMaxPool")


class GlobalLpPool(_Global):
    """The norm of order ``p`` of each channel."""

    name = "global_lp_pool"
    onnx = Onnx("GlobalLpPool")

    p: int = 2
