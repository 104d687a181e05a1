"""Image files, and what is done to their pixels before a net's own numbers come in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from qdqc.diagnostics import QdqcError

__all__ = ["check_pixels", "open_image", "scaled", "unreadable", "upright"]

_MOST_PIXELS = 1 << 27
"""A file of few bytes may claim any number of them."""

_RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


def scaled(
    image: Image.Image, size: tuple[int, int], interpolation: str
) -> npt.NDArray[np.float32]:
    """Pixels of an image brought to a size (height, width), f32 [h,w,C].

    ``interpolation`` is bilinear or bicubic.
    """
    height, width = size
    if image.size != (width, height):
        image = image.resize((width, height), _RESAMPLING[interpolation])
    pixels = np.asarray(image, np.float32)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def open_image(path: str | Path) -> Image.Image:
    """The decoded image of a file, turned as its EXIF data say; the first one of several.

    Raises QdqcError when the file holds none.
    """
    try:
        with Image.open(path) as image:
            check_pixels(image)
            image.load()
            return ImageOps.exif_transpose(image)  # a copy: the file may be closed
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as err:
        raise unreadable(path, err) from err


def check_pixels(image: Image.Image) -> None:
    """Raises ValueError for an image, not decoded yet, of more pixels than one may have."""
    width, height = image.size
    if width * height > _MOST_PIXELS:
        raise ValueError(f"it has {width} x {height} pixels, and {_MOST_PIXELS} is the limit")


def unreadable(path: str | Path, err: Exception) -> QdqcError:
    """The error for a file that holds no image that can be read."""
    if isinstance(err, UnidentifiedImageError):
        reason = "it is in no known image format"
    else:
        reason = (err.strerror or str(err)) if isinstance(err, OSError) else str(err)
    return QdqcError(
        f"can't read the image: {reason}",
        file=str(path),
        notes=["remove or replace the file, then run again"],
    )


def upright(image: Image.Image, gray: bool) -> Image.Image:
    """The image as its EXIF data turn it, with 8 bits a channel, gray or RGB.

    16-bit pixels keep their upper byte.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 256).astype(np.uint8))
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    return image.convert("L" if gray else "RGB")
