"""Where the pixels of an image go: turned, scaled, cut and padded, against plain arithmetic."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from qdqc.data.images import open_image
from qdqc.data.preprocess import Preprocess
from qdqc.diagnostics import QdqcError
from qdqc.ir.types import Elem, TensorType

SIDES = st.integers(1, 40)
ORIENTATION = 0x0112
TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}
"""What each EXIF orientation asks for, as the standard's picture of the letter F has it."""


def net(height: int, width: int, channels: int = 3) -> TensorType:
    return TensorType(Elem.F32, (1, channels, height, width))


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 100 + width).integers(
        0, 256, (height, width, 3), dtype=np.uint8
    )


def pixels(found: np.ndarray) -> np.ndarray:
    return found[0].transpose(1, 2, 0)


def bilinear(array: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resampling by a triangle as wide as the larger grid's step, in float64, along both axes."""
    for axis, size in ((0, height), (1, width)):
        array = np.moveaxis(array, axis, 0).astype(np.float64)
        old = array.shape[0]
        step = old / size
        reach = max(step, 1.0)
        centres = (np.arange(size) + 0.5) * step
        distance = np.abs(np.arange(old)[None] + 0.5 - centres[:, None]) / reach
        weights = np.clip(1 - distance, 0, None)
        weights /= weights.sum(axis=1, keepdims=True)
        array = np.moveaxis(np.tensordot(weights, array, 1), 0, axis)
    return array


@pytest.mark.parametrize("orientation", list(TURNS))
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_every_orientation_of_exif(tmp_path: Path, orientation: int, suffix: str) -> None:
    array = np.zeros((16, 24, 3), np.uint8)
    array[:8, :8], array[:8, 8:16], array[8:, :8] = 250, 120, 60
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / f"a.{suffix}"
    more = {"quality": 100} if suffix in ("jpg", "webp") else {}
    Image.fromarray(array).save(path, exif=exif, **more)
    wanted = TURNS[orientation](array).astype(np.float32)
    found = pixels(Preprocess().apply(path, net(*wanted.shape[:2])))
    assert np.abs(found - wanted).max() < (1 if suffix in ("png", "tif") else 8)


@settings(max_examples=80, deadline=None)
@given(SIDES, SIDES, SIDES, SIDES)
def test_plain_resizing_is_bilinear(height: int, width: int, h: int, w: int) -> None:
    array = noise(height, width)
    found = Preprocess(pixel_format="rgb").apply(Image.fromarray(array), net(h, w))
    np.testing.assert_allclose(pixels(found), bilinear(array, h, w), atol=1.2)


@settings(max_examples=80, deadline=None)
@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from(["center", "normal"]))
def test_a_letterbox_fits_pads_and_keeps_the_ratio(
    height: int, width: int, h: int, w: int, pad_type: str
) -> None:
    array = noise(height, width)
    options = Preprocess(
        keep_aspect_ratio=True, pad_value=300.0, pad_type=pad_type, pixel_format="rgb"
    )
    found = pixels(options.apply(Image.fromarray(array), net(h, w)))
    ratio = min(Fraction(h, height), Fraction(w, width))
    inner = tuple(max(1, int(side * ratio)) for side in (height, width))
    assert h in inner or w in inner
    top, left = ((h - inner[0]) // 2, (w - inner[1]) // 2) if pad_type == "center" else (0, 0)
    wanted = np.full((h, w, 3), 300.0)
    wanted[top : top + inner[0], left : left + inner[1]] = bilinear(array, *inner)
    assert ((found == 300) == (wanted == 300)).all()
    np.testing.assert_allclose(found, wanted, atol=1.2)


@settings(max_examples=80, deadline=None)
@given(SIDES, SIDES, SIDES, SIDES)
def test_the_short_side_covers_and_the_middle_is_cut(
    height: int, width: int, h: int, w: int
) -> None:
    array = noise(height, width)
    options = Preprocess(
        keep_aspect_ratio=True, keep_ratio_mode="short_side_scale", pixel_format="rgb"
    )
    found = pixels(options.apply(Image.fromarray(array), net(h, w)))
    ratio = max(Fraction(h, height), Fraction(w, width))
    whole = tuple(int(side * ratio) for side in (height, width))
    assert whole[0] >= h
    assert whole[1] >= w
    top, left = round((whole[0] - h) / 2), round((whole[1] - w) / 2)
    wanted = bilinear(array, *whole)[top : top + h, left : left + w]
    np.testing.assert_allclose(found, wanted, atol=1.2)


@settings(max_examples=40, deadline=None)
@given(SIDES, SIDES, st.integers(0, 12), st.integers(0, 12))
def test_a_larger_resize_is_cut_from_the_middle(h: int, w: int, more: int, wider: int) -> None:
    array = noise(h + more, w + wider)
    options = Preprocess(resize_dims=(h + more, w + wider), pixel_format="rgb")
    found = pixels(options.apply(Image.fromarray(array), net(h, w)))
    top, left = round(more / 2), round(wider / 2)
    np.testing.assert_array_equal(found, array[top : top + h, left : left + w])


def test_bicubic_overshoots_where_bilinear_does_not() -> None:
    array = np.full((8, 8, 3), 100, np.uint8)
    array[:, 4:] = 150
    image = Image.fromarray(array)
    line = [
        pixels(Preprocess(interpolation=kind).apply(image, net(8, 32)))[0, :, 0]
        for kind in ("bilinear", "bicubic")
    ]
    assert (line[0].min(), line[0].max()) == (100, 150)
    assert line[1].min() < 100
    assert line[1].max() > 150


def rgb_of(mode: str) -> tuple[Image.Image, tuple[int, int, int]]:
    """An image of one colour in a mode, and that colour."""
    base = Image.new("RGB", (4, 4), (200, 100, 50))
    if mode in ("HSV", "YCbCr", "CMYK", "RGBX"):
        return base.convert(mode), (200, 100, 50)
    if mode == "RGBA":
        return Image.new("RGBA", (4, 4), (200, 100, 50, 7)), (200, 100, 50)
    if mode == "P":
        return base.quantize(4), (200, 100, 50)
    if mode == "PA":
        image = base.quantize(4)
        image.info["transparency"] = 0
        return image, (200, 100, 50)
    if mode == "F":
        return Image.fromarray(np.full((4, 4), 77.0, np.float32)), (77, 77, 77)
    if mode == "I":
        return Image.fromarray(np.full((4, 4), 256 * 77 + 3, np.int32)), (77, 77, 77)
    if mode == "I;16B":
        whole = np.full((4, 4), 256 * 77 + 3, ">u2")
        return Image.frombytes("I;16B", (4, 4), whole.tobytes()), (77, 77, 77)
    raise AssertionError(mode)


@pytest.mark.parametrize(
    "mode", ["RGBA", "P", "PA", "HSV", "YCbCr", "CMYK", "RGBX", "F", "I", "I;16B"]
)
def test_colours_of_every_mode(mode: str) -> None:
    image, colour = rgb_of(mode)
    found = pixels(Preprocess(pixel_format="rgb").apply(image, net(4, 4)))
    assert np.abs(found - np.array(colour)).max() <= 2
    gray = Preprocess(pixel_format="gray").apply(image, net(4, 4, 1))
    luma = np.dot(colour, [0.299, 0.587, 0.114])
    assert np.abs(gray - luma).max() <= 2


def test_wide_pixels_outside_their_range_are_clipped() -> None:
    image = Image.fromarray(np.array([[-5, 70000]], np.int32))
    found = Preprocess().apply(image, net(1, 2))
    assert found[0, 0, 0].tolist() == [0, 255]


def test_only_the_first_frame_counts(tmp_path: Path) -> None:
    first, second = (Image.new("RGB", (4, 4), (v, v, v)) for v in (10, 200))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    assert (Preprocess().apply(tmp_path / "a.gif", net(4, 4)) == 10).all()


def test_a_hostile_size_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (60, 60)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(QdqcError, match=r"a.png: error: can't read the image: Image size"):
        open_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("mean", "scale"),
    [((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), ((123.675, 116.28, 103.53), (0.0171, 0.0175, 0.0174))],
)
@pytest.mark.parametrize("pixel_format", ["rgb", "bgr"])
def test_normalisation_is_that_of_the_formula(
    mean: tuple[float, ...], scale: tuple[float, ...], pixel_format: str
) -> None:
    array = noise(6, 5)
    options = Preprocess(mean=mean, scale=scale, pixel_format=pixel_format)
    found = pixels(options.apply(Image.fromarray(array), net(6, 5)))
    ordered = array if pixel_format == "rgb" else array[:, :, ::-1]
    wanted = (ordered.astype(np.float64) - np.array(mean)) * np.array(scale)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
