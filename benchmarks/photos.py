"""Photos as EfficientNet-Lite0 takes them: ``(x - 127) / 128`` of a 224x224 cut, RGB, NCHW."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = [
    "PREPROCESS_OPTIONS",
    "VIEWS",
    "Labelled",
    "centre",
    "centres",
    "labelled_photos",
    "offsets",
    "photo_files",
    "resized",
    "views",
]

Pixels: TypeAlias = npt.NDArray[np.float32]

SHORTER_SIDE = 256
CUT = 224
VIEWS = 10
"""Centre and four corners, each as it is and flipped; the centre comes first."""

PREPROCESS_OPTIONS = (
    *("--pixel_format", "rgb", "--interpolation", "bicubic"),
    *("--resize_dims", f"{SHORTER_SIDE},{SHORTER_SIDE}"),
    *("--keep_aspect_ratio", "--keep_ratio_mode", "short_side_scale"),
    *("--mean", "127,127,127", "--scale", "0.0078125,0.0078125,0.0078125"),
)
"""The same preprocessing as options of ``model_transform``."""


class Labelled(NamedTuple):
    """A photo and the index of its class."""

    path: Path
    label: int


def labelled_photos(folder: Path, split: str) -> list[Labelled]:
    """The photos of a split by ``labels.tsv``, whose columns are split, file, class_index."""
    rows = (folder / "labels.tsv").read_text(encoding="utf-8").splitlines()[1:]
    fields = [row.split("\t") for row in rows if row]
    return [
        Labelled(folder / split / file, int(label)) for of, file, label in fields if of == split
    ]


def photo_files(folder: Path) -> list[Path]:
    """The JPEG files of a folder, sorted by name."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg"))


def resized(path: Path) -> Image.Image:
    """The photo, RGB, its shorter side at 256 (bicubic), the longer one rounded down."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    width, height = image.size
    short = min(width, height)
    size = (width * SHORTER_SIDE // short, height * SHORTER_SIDE // short)
    return image.resize(size, Image.Resampling.BICUBIC)


def offsets(height: int, width: int) -> list[tuple[int, int]]:
    """Top and left of the five cuts: centre, then the corners by rows.

    The centre is rounded half to even, as torchvision's CenterCrop does.
    """
    bottom, right = height - CUT, width - CUT
    middle = (round(bottom / 2), round(right / 2))
    return [middle, (0, 0), (0, right), (bottom, 0), (bottom, right)]


def views(path: Path, count: int = VIEWS) -> Pixels:
    """The first ``count`` views of a photo, f32 [count,3,224,224]: five cuts, each flipped too."""
    whole = np.asarray(resized(path), np.float32)
    cuts: list[npt.NDArray[Any]] = []
    for top, left in offsets(*whole.shape[:2]):
        cut = whole[top : top + CUT, left : left + CUT]
        cuts += [cut, cut[:, ::-1]]
    return np.stack([_network_input(cut) for cut in cuts[:count]])


def centre(path: Path) -> Pixels:
    """The centre view of a photo, f32 [1,3,224,224]."""
    return views(path, 1)


def centres(paths: list[Path], name: str = "input") -> Iterator[dict[str, Pixels]]:
    """The centre views as inputs of a session, read from disk one at a time."""
    for path in paths:
        yield {name: centre(path)}


def _network_input(cut: npt.NDArray[Any]) -> Pixels:
    return ((cut - np.float32(127)) * np.float32(1 / 128)).transpose(2, 0, 1)
