"""How an image becomes the input of a net: ``y = (x - mean) * scale`` on 0..255 pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from qdqc.diagnostics import QdqcError
from qdqc.ir.fields import FieldError, decode
from qdqc.ir.types import TensorType

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Preprocess", "Size", "looks_nhwc"]

Size: TypeAlias = tuple[int, int]
"""Height and width."""

Pixels: TypeAlias = npt.NDArray[np.float32]

_MARKER = "pixel_format"
"""The option that is always stored, so that an input with defaults is known as an image."""


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """Preprocessing of an image input, by the options of ``model_transform``.

    ``resize_dims`` (height, width) is the size that images are brought to before the net's own
    size is cut from the centre. With ``keep_aspect_ratio``, ``short_side_scale`` makes the
    image cover that size and ``letterbox`` makes it fit and pads the rest with ``pad_value``.
    ``mean`` and ``scale`` stand in the order of the channels of ``pixel_format``; one number
    serves all channels. None is stated by nobody, and counts as 0 and 1.
    """

    resize_dims: tuple[int, int] | None = None
    keep_aspect_ratio: bool = False
    keep_ratio_mode: Literal["letterbox", "short_side_scale"] = "letterbox"
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    pad_value: float = 0.0
    pad_type: Literal["normal", "center"] = "center"
    mean: tuple[float, ...] | None = None
    scale: tuple[float, ...] | None = None
    pixel_format: Literal["rgb", "bgr", "gray"] = "bgr"
    channel_format: Literal["nchw", "nhwc", "none"] = "nchw"

    @property
    def is_image(self) -> bool:
        return self.channel_format != "none"

    @property
    def channels(self) -> int:
        return 1 if self.pixel_format == "gray" else 3

    @property
    def is_stated(self) -> bool:
        """Whether somebody said which numbers pixels become."""
        return self.mean is not None or self.scale is not None

    @property
    def means(self) -> tuple[float, ...]:
        """What is subtracted from each channel."""
        return self._channels_of(self.mean, 0.0)

    @property
    def scales(self) -> tuple[float, ...]:
        """What each channel is multiplied by then."""
        return self._channels_of(self.scale, 1.0)

    def _channels_of(self, numbers: tuple[float, ...] | None, unstated: float) -> tuple[float, ...]:
        given = (unstated,) if numbers is None else numbers
        return given * self.channels if len(given) == 1 else given[: self.channels]

    def text(self, type: TensorType | None = None) -> str:
        """All of it in one line for people, by what is done first."""
        net = None if type is None else self.net_size(type)
        steps = [f"{self.pixel_format} {self.channel_format}"]
        wanted = self.resize_dims or net
        if wanted is not None:
            how = f", {self.keep_ratio_mode}" if self.keep_aspect_ratio else ""
            steps.append(f"to {wanted[0]}x{wanted[1]} ({self.interpolation}{how})")
        if net is not None and wanted != net:
            steps.append(f"the middle {net[0]}x{net[1]}")
        mean, scale = (_short(numbers) for numbers in (self.means, self.scales))
        whole = f"(pixel - {mean}) * {scale}" if self.is_stated else "pixels of 0..255 as they are"
        return ", ".join([*steps, whole])

    def to_attrs(self) -> dict[str, Any]:
        """Plain values for ``Graph.input_attrs``: what differs from its default."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        defaults = {f.name: f.default for f in fields(self)}
        return {n: v for n, v in values.items() if n == _MARKER or v != defaults[n]}

    @classmethod
    def from_attrs(cls, attrs: Mapping[str, Any] | None) -> Preprocess | None:
        """The preprocessing that an input states, None where it states none.

        Raises QdqcError for an unknown option or a value of the wrong kind.
        """
        if not attrs or _MARKER not in attrs:
            return None
        try:
            return decode(cls, attrs, "preprocessing")
        except FieldError as err:
            raise QdqcError(
                str(err), notes=["the options of model_transform say what fits"]
            ) from err

    def net_size(self, type: TensorType) -> Size | None:
        """Height and width of the net's input, None where they are symbols.

        Raises QdqcError when the input takes no image with these options.
        """
        shape = type.shape
        if not self.is_image or shape is None or len(shape) != 4:
            raise QdqcError(
                "the input takes no images: it is not a 4-D tensor with a channel format",
                notes=["give the data as npz or npy files"],
            )
        channel, height, width = (
            shape[1:] if self.channel_format == "nchw" else (shape[3], *shape[1:3])
        )
        other = shape[3] if self.channel_format == "nchw" else shape[1]
        elsewhere = not isinstance(channel, int) and other == self.channels
        if elsewhere or (isinstance(channel, int) and channel != self.channels):
            right = "nhwc" if self.channel_format == "nchw" else "nchw"
            way = f"the shape says `channel_format` {right}: " if other == self.channels else ""
            raise QdqcError(
                f"the input has {channel} channels in {self.channel_format} order, but pixel "
                f"format '{self.pixel_format}' has {self.channels}",
                notes=[f"{way}set `pixel_format` and `channel_format` at model_transform"],
            )
        if not isinstance(height, int) or not isinstance(width, int):
            return None
        return height, width

    def check(self, type: TensorType) -> None:
        """Whether the options fit each other and the input. Raises QdqcError."""
        net = self.net_size(type)
        for name, values in (("mean", self.mean), ("scale", self.scale)):
            if values is not None and len(values) not in (1, self.channels, 3):
                raise QdqcError(
                    f"`{name}` has {len(values)} numbers, but pixel format "
                    f"'{self.pixel_format}' has {self.channels} channels",
                    notes=["give one number for all channels, or one for each"],
                )
        self._check_integers(type)
        target = self.resize_dims
        if target is not None and min(target) < 1:
            raise QdqcError(f"`resize_dims` {target[0]},{target[1]} is not a size")
        if target and net and (target[0] < net[0] or target[1] < net[1]):
            raise QdqcError(
                f"`resize_dims` {target[0]},{target[1]} is smaller than the net's input, "
                f"{net[0]}x{net[1]}, which is cut from it",
                notes=["give a size that is at least as large, or leave the option out"],
            )

    def apply(self, image: Image.Image | str | Path, type: TensorType) -> Pixels:
        """The input of the net, f32 [1,C,H,W] (or [1,H,W,C]), from an image or its file.

        The image is turned as its EXIF data say and loses its alpha channel. The size of the
        longer side under ``short_side_scale`` is rounded down, and the cut's offset to even, as
        torchvision does. Raises QdqcError.
        """
        self.check(type)
        from qdqc.data.images import open_image, upright

        pixels = open_image(image) if isinstance(image, str | Path) else image
        pixels = upright(pixels, self.pixel_format == "gray")
        net = self.net_size(type)
        target = self.resize_dims or net or (pixels.height, pixels.width)
        whole = self._resize(pixels, target)
        if net is not None:
            top, left = (round((whole.shape[i] - net[i]) / 2) for i in (0, 1))
            whole = whole[top : top + net[0], left : left + net[1]]
        if self.pixel_format == "bgr":
            whole = whole[:, :, ::-1]
        out = (whole - _numbers(self.means)) * _numbers(self.scales)
        if self.channel_format == "nchw":
            out = out.transpose(2, 0, 1)
        return np.ascontiguousarray(out[None])

    def pixels(self, numbers: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """The pixels of an input [N,C,H,W] (or [N,H,W,C]), u8: ``apply`` undone."""
        shape = (-1, 1, 1) if self.channel_format == "nchw" else (-1,)
        mean, scale = (_numbers(v).reshape(shape) for v in (self.means, self.scales))
        return np.rint(numbers / scale + mean).clip(0, 255).astype(np.uint8)

    def numbers(self, pixels: npt.NDArray[np.uint8]) -> Pixels:
        """What an input [N,C,H,W] (or [N,H,W,C]) of these pixels is, f32."""
        shape = (-1, 1, 1) if self.channel_format == "nchw" else (-1,)
        mean, scale = (_numbers(v).reshape(shape) for v in (self.means, self.scales))
        return (pixels.astype(np.float32) - mean) * scale

    def _check_integers(self, type: TensorType) -> None:
        """An input of integers takes pixels; what mean and scale make of them must be integers."""
        if type.quant is not None or type.elem.is_float:
            return
        ends = [(x - m) * s for m, s in zip(self.means, self.scales, strict=True) for x in (0, 255)]
        low, high = type.elem.limits
        whole = all(m == int(m) for m in self.means) and all(s == 1 for s in self.scales)
        if not whole or min(ends) < low or max(ends) > high:
            raise QdqcError(
                f"the input takes {type.elem.text}, which (pixel - mean) * scale with mean "
                f"{_short(self.means)} and scale {_short(self.scales)} does not fit",
                notes=["leave out `mean` and `scale`: such a net takes the pixels themselves"],
            )

    def _resize(self, image: Image.Image, target: Size) -> Pixels:
        """Pixels [h,w,C] of at least the target size; exactly it, but for short_side_scale."""
        from qdqc.data.images import scaled

        height, width = target
        if not self.keep_aspect_ratio:
            return scaled(image, target, self.interpolation)
        wide = image.width * height >= image.height * width
        by_width = max(1, image.height * width // image.width)
        by_height = max(1, image.width * height // image.height)
        if self.keep_ratio_mode == "short_side_scale":
            cover = (height, by_height) if wide else (by_width, width)
            return scaled(image, cover, self.interpolation)
        inside = (by_width, width) if wide else (height, by_height)
        inner = scaled(image, inside, self.interpolation)
        out = np.full((height, width, inner.shape[2]), self.pad_value, np.float32)
        centred = self.pad_type == "center"
        top, left = ((target[i] - inner.shape[i]) // 2 if centred else 0 for i in (0, 1))
        out[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
        return out


def looks_nhwc(type: TensorType) -> bool:
    """Whether the shape is [N,H,W,3], and no [N,3,H,W] too."""
    shape = type.shape
    return shape is not None and len(shape) == 4 and shape[3] == 3 and shape[1] not in (1, 3)


def _numbers(channels: tuple[float, ...]) -> Pixels:
    return np.array(channels, np.float32)


def _short(channels: tuple[float, ...]) -> str:
    """One number where all channels have the same."""
    return ",".join(f"{n:g}" for n in (channels[:1] if len(set(channels)) == 1 else channels))
