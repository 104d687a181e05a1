"""Interpolation on a grid."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from qdqc.ir.core import Constant, Node
from qdqc.ir.dims import Dim
from qdqc.ir.op import Kind, Onnx, Op, QuantTraits
from qdqc.ir.types import TensorType, Type
from qdqc.ops.inference import axes_in, dims_operand, known, need_rank, traits

__all__ = ["AffineGrid", "GridSample", "Resize", "RoiAlign"]

Coordinates: TypeAlias = Literal[
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_crop_and_resize",
    "tf_half_pixel_for_nn",
]
Rounding: TypeAlias = Literal["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]


class Resize(Op):
    """x brought to other sizes along ``axes`` (default: all): by ``scales`` (f32) or to ``sizes``.

    An operand of no elements counts as absent, as opset 11 spells it.
    """

    name = "resize"
    operands = ("x", "roi?", "scales?", "sizes?")
    onnx = Onnx(
        "Resize",
        since=11,
        field_since={"antialias": 18, "axes": 18, "keep_aspect_ratio_policy": 18},
    )

    mode: Literal["nearest", "linear", "cubic"] = "nearest"
    coordinate_transformation_mode: Coordinates = "half_pixel"
    nearest_mode: Rounding = "round_prefer_floor"
    cubic_coeff_a: float = -0.75
    exclude_outside: bool = False
    extrapolation_value: float = 0.0
    antialias: bool = False
    axes: tuple[int, ...] = ()
    keep_aspect_ratio_policy: Literal["stretch", "not_larger", "not_smaller"] = "stretch"

    def infer(
        self,
        x: TensorType,
        roi: TensorType | None = None,
        scales: TensorType | None = None,
        sizes: TensorType | None = None,
    ) -> tuple[TensorType]:
        """Shapes by sizes; by scales only ``infer_node`` can tell, which sees their contents."""
        if _is_absent(scales) and _is_absent(sizes):
            raise ValueError("neither scales nor sizes are given")
        if not _is_absent(scales) and not _is_absent(sizes):
            raise ValueError("both scales and sizes are given, but only one of them can hold")
        if x.shape is None:
            return (TensorType(x.elem, None),)
        axes = axes_in(self.axes, len(x.shape)) or tuple(range(len(x.shape)))
        if scales is not None:
            need_rank(scales, "scales", 1)
        wanted = None
        if sizes is not None and not _is_absent(sizes):
            wanted = dims_operand(sizes, "sizes")
        if wanted is None:
            wanted = (None,) * len(axes)
        if self.keep_aspect_ratio_policy != "stretch" and len(wanted) == len(axes):
            wanted = self._in_proportion(tuple(x.shape[a] for a in axes), wanted)
        return (TensorType(x.elem, _placed(x.shape, axes, wanted, "sizes")),)

    def _in_proportion(self, sizes: tuple[Dim, ...], wanted: tuple[Dim, ...]) -> tuple[Dim, ...]:
        """Sizes by the one scale that makes them no larger (or no smaller) than wanted."""
        pairs = list(zip(sizes, wanted, strict=True))
        scales = [w / h for h, w in pairs if isinstance(h, int) and isinstance(w, int) and h]
        if len(scales) != len(pairs):
            return (None,) * len(pairs)
        choose = min if self.keep_aspect_ratio_policy == "not_larger" else max
        scale = choose(scales, default=1.0)
        return tuple(math.floor(h * scale + 0.5) for h in sizes if isinstance(h, int))

    def infer_node(self, node: Node[Any]) -> tuple[Type | None, ...]:
        types = super().infer_node(node)
        x, scales = node.operand_types()[0], node.operand("scales")
        if not isinstance(scales, Constant) or not isinstance(x, TensorType):
            return types
        if not scales.data.size or scales.data.is_elided:
            return types
        return (self.scaled(x, scales.data.array().astype(np.float32)),)

    def scaled(self, x: TensorType, scales: npt.NDArray[np.float32]) -> TensorType:
        """The type after resizing by these scales: floor(size * scale) along each axis."""
        if x.shape is None:
            return TensorType(x.elem, None)
        axes = axes_in(self.axes, len(x.shape)) or tuple(range(len(x.shape)))
        if scales.size != len(axes):
            raise ValueError(f"scales has {scales.size} entries for {len(axes)} axes")
        pairs = zip(axes, scales.reshape(-1), strict=True)
        sizes = tuple(_scaled(x.shape[axis], scale) for axis, scale in pairs)
        return TensorType(x.elem, _placed(x.shape, axes, sizes, "scales"))

    def quant(self, x: TensorType, *others: TensorType | None) -> QuantTraits:
        """Only the nearest neighbour keeps elements as they are."""
        return traits(x, Kind.PRESERVING if self.mode == "nearest" else Kind.FLOAT)


def _is_absent(type: TensorType | None) -> bool:
    return type is None or type.shape == (0,)


def _scaled(dim: Dim, scale: np.float32) -> Dim:
    """floor(dim * scale), in float32 as the runtime counts."""
    if dim is None or not scale > 0:
        return None
    if isinstance(dim, int):
        return math.floor(np.float32(dim) * scale)
    if float(scale).is_integer():
        return dim * int(scale)
    inverse = 1 / float(scale)
    return dim // int(inverse) if inverse.is_integer() else None


def _placed(
    shape: tuple[Dim, ...], axes: tuple[int, ...], sizes: tuple[Dim, ...], what: str
) -> tuple[Dim, ...]:
    if len(sizes) != len(axes):
        raise ValueError(f"{what} has {len(sizes)} entries for {len(axes)} axes")
    dims = list(shape)
    for axis, size in zip(axes, sizes, strict=True):
        dims[axis] = size
    return tuple(dims)


class GridSample(Op):
    """x, NC..., sampled where ``grid`` [N, out..., spatial rank] points, in units of -1 to 1.

    ``mode`` is ``linear``, ``nearest`` or ``cubic``; ``padding_mode`` is ``zeros``, ``border``
    or ``reflection``.
    """

    name = "grid_sample"
    operands = ("x", "grid")
    onnx = Onnx("GridSample", since=20)

    mode: Literal["linear", "nearest", "cubic"] = "linear"
    padding_mode: Literal["zeros", "border", "reflection"] = "zeros"
    align_corners: bool = False

    def infer(self, x: TensorType, grid: TensorType) -> tuple[TensorType]:
        if x.shape is None and grid.shape is None:
            return (TensorType(x.elem, None),)
        given = x.shape if x.shape is not None else grid.shape
        assert given is not None
        rank = len(given)
        need_rank(x, "x", rank)
        need_rank(grid, "grid", rank)
        if rank < 3:
            raise ValueError(f"x has rank {rank}, but rank 3 or more is needed")
        entries = None if grid.shape is None else grid.shape[-1]
        if isinstance(entries, int) and entries != rank - 2:
            raise ValueError(f"points of grid have {entries} entries, not {rank - 2}")
        batch, channels = (None, None) if x.shape is None else x.shape[:2]
        places = (None,) * (rank - 2) if grid.shape is None else grid.shape[1:-1]
        return (TensorType(x.elem, (batch, channels, *places)),)


class AffineGrid(Op):
    """Points [N, *spatial, rank] for GridSample: theta @ (place, 1) of each place in a picture.

    theta is [N, 2, 3] or [N, 3, 4], ``size`` an i64 operand [N, C, *spatial]. Places run from -1
    to 1: centers of the outer pixels with ``align_corners``, else their outer edges.
    """

    name = "affine_grid"
    operands = ("theta", "size")
    onnx = Onnx("AffineGrid", since=20)

    align_corners: bool = False

    def infer(self, theta: TensorType, size: TensorType) -> tuple[TensorType]:
        need_rank(theta, "theta", 3)
        dims = dims_operand(size, "size")
        if dims is None:
            return (TensorType(theta.elem, None),)
        if len(dims) not in (4, 5):
            raise ValueError(f"size has {len(dims)} entries, but 4 or 5 are needed")
        batch = known(dims[0], None if theta.shape is None else theta.shape[0])
        return (TensorType(theta.elem, (batch, *dims[2:], len(dims) - 2)),)


class RoiAlign(Op):
    """Regions of x, NCHW, each pooled into a grid of ``output_height`` by ``output_width``.

    ``rois`` is [regions, 4] in pixels times ``spatial_scale``, ``batch_indices`` i64 [regions].
    """

    name = "roi_align"
    operands = ("x", "rois", "batch_indices")
    onnx = Onnx("RoiAlign", since=16)

    mode: Literal["avg", "max"] = "avg"
    coordinate_transformation_mode: Literal["half_pixel", "output_half_pixel"] = "half_pixel"
    output_height: int = 1
    output_width: int = 1
    sampling_ratio: int = 0
    spatial_scale: float = 1.0

    def infer(
        self, x: TensorType, rois: TensorType, batch_indices: TensorType
    ) -> tuple[TensorType]:
        need_rank(x, "x", 4)
        need_rank(rois, "rois", 2)
        need_rank(batch_indices, "batch_indices", 1)
        channels = None if x.shape is None else x.shape[1]
        counts = [t.shape[0] for t in (rois, batch_indices) if t.shape is not None]
        if len({c for c in counts if isinstance(c, int)}) > 1:
            raise ValueError(f"there are {counts[0]} rois, but {counts[1]} batch_indices")
        return (
            TensorType(x.elem, (known(*counts), channels, self.output_height, self.output_width)),
        )
