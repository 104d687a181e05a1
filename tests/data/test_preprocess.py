from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qdqc.data.preprocess import Preprocess
from qdqc.diagnostics import QdqcError
from qdqc.ir.types import Elem, TensorType

NCHW = TensorType(Elem.F32, (1, 3, 224, 224))
EFFNET = Preprocess(
    resize_dims=(256, 256),
    keep_aspect_ratio=True,
    keep_ratio_mode="short_side_scale",
    interpolation="bicubic",
    mean=(127.0, 127.0, 127.0),
    scale=(1 / 128, 1 / 128, 1 / 128),
    pixel_format="rgb",
)


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)


def small(channels: int, height: int, width: int) -> TensorType:
    return TensorType(Elem.F32, (1, channels, height, width))


@pytest.mark.parametrize(
    ("size", "scaled"),
    [((500, 333), (384, 256)), ((288, 400), (256, 355)), ((256, 256), (256, 256))],
)
def test_short_side_bicubic_centre_crop_equals_pil_and_numpy(
    size: tuple[int, int], scaled: tuple[int, int]
) -> None:
    image = photo(*size)
    whole = np.asarray(image.resize(scaled, Image.Resampling.BICUBIC), np.float32)
    top, left = round((scaled[1] - 224) / 2), round((scaled[0] - 224) / 2)
    crop = whole[top : top + 224, left : left + 224]
    expected = ((crop - 127) / 128).transpose(2, 0, 1)[None]
    found = EFFNET.apply(image, NCHW)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def test_a_file_gives_what_its_image_gives(tmp_path: Path) -> None:
    photo(300, 260).save(tmp_path / "a.png")
    from_file = EFFNET.apply(tmp_path / "a.png", NCHW)
    np.testing.assert_array_equal(from_file, EFFNET.apply(photo(300, 260), NCHW))


def test_channels_follow_the_pixel_format() -> None:
    image = Image.new("RGB", (4, 4), (10, 20, 30))
    options = Preprocess(mean=(1.0, 2.0, 3.0), scale=(1.0, 10.0, 100.0))
    bgr = options.apply(image, small(3, 4, 4))
    assert bgr[0, :, 0, 0].tolist() == [29, 180, 700]
    rgb = replace(options, pixel_format="rgb").apply(image, small(3, 4, 4))
    assert rgb[0, :, 0, 0].tolist() == [9, 180, 2700]
    gray = replace(options, pixel_format="gray").apply(image, small(1, 4, 4))
    assert gray.shape == (1, 1, 4, 4)
    assert gray[0, 0, 0, 0] == np.asarray(image.convert("L"))[0, 0] - 1


def test_nhwc_keeps_the_channels_last() -> None:
    options = Preprocess(pixel_format="rgb", channel_format="nhwc")
    found = options.apply(Image.new("RGB", (6, 5), (1, 2, 3)), TensorType(Elem.F32, (1, 5, 6, 3)))
    assert found.shape == (1, 5, 6, 3)
    assert found[0, 4, 5].tolist() == [1, 2, 3]


@pytest.mark.parametrize(("pad_type", "rows"), [("center", (2, 6)), ("normal", (0, 4))])
def test_letterbox_pads_what_the_image_does_not_cover(pad_type: str, rows: tuple[int, int]) -> None:
    options = Preprocess.from_attrs(
        {
            "keep_aspect_ratio": True,
            "pad_value": 114,
            "pad_type": pad_type,
            "pixel_format": "rgb",
            "mean": [14, 14, 14],
        }
    )
    assert options is not None
    found = options.apply(Image.new("RGB", (16, 8), (24, 24, 24)), small(3, 8, 8))
    inside = np.zeros(8, bool)
    inside[rows[0] : rows[1]] = True
    assert (found[0, :, inside] == 10).all()
    assert (found[0, :, ~inside] == 100).all()


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    pixels = np.zeros((2, 4, 3), np.uint8)
    pixels[0, 0] = 200
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    found = Preprocess().apply(tmp_path / "turned.png", small(3, 4, 2))
    assert found[0, 0].argmax() == 1, "the first pixel stands at the right of the first row"


@pytest.mark.parametrize("mode", ["RGBA", "LA", "L", "P", "1", "I;16", "CMYK"])
def test_every_mode_of_pixels_becomes_three_channels(mode: str) -> None:
    image = Image.new("L", (4, 4), 255)
    image = Image.fromarray(np.full((4, 4), 65535, np.uint16)) if mode == "I;16" else image
    found = Preprocess().apply(
        image
        if mode == "I;16"
        else image.convert("RGB").convert(mode)
        if mode == "CMYK"
        else image.convert(mode),
        small(3, 4, 4),
    )
    assert (found == 255).all()


def test_symbolic_size_takes_the_image_as_it_is() -> None:
    found = Preprocess().apply(photo(9, 5), TensorType(Elem.F32, (1, 3, None, None)))
    assert found.shape == (1, 3, 5, 9)


def test_attributes_read_back() -> None:
    assert Preprocess.from_attrs(EFFNET.to_attrs()) == EFFNET
    assert Preprocess().to_attrs() == {"pixel_format": "bgr"}
    assert Preprocess.from_attrs(Preprocess().to_attrs()) == Preprocess()
    assert Preprocess.from_attrs({}) is None
    with pytest.raises(QdqcError, match="did you mean 'pad_value'"):
        Preprocess.from_attrs({"pixel_format": "rgb", "pad_valu": 1})


@pytest.mark.parametrize(
    ("options", "type", "message"),
    [
        ({"resize_dims": [100, 300]}, NCHW, "smaller than the net's input, 224x224"),
        ({"mean": [1, 2]}, NCHW, "`mean` has 2 numbers"),
        ({"pixel_format": "gray"}, NCHW, "3 channels in nchw order"),
        ({"channel_format": "none"}, NCHW, "takes no images"),
        ({}, TensorType(Elem.F32, (1, 10)), "takes no images"),
    ],
)
def test_options_that_do_not_fit(
    options: dict[str, object], type: TensorType, message: str
) -> None:
    found = Preprocess.from_attrs({"pixel_format": "rgb", **options})
    assert found is not None
    with pytest.raises(QdqcError, match=message):
        found.check(type)


def test_a_broken_image_names_its_file(tmp_path: Path) -> None:
    photo(64, 64).save(tmp_path / "cut.jpg")
    data = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.jpg").write_text("no image")
    for name, reason in (("cut.jpg", "truncated"), ("text.jpg", "no known image format")):
        with pytest.raises(QdqcError, match=rf"{name}: error: can't read the image: .*{reason}"):
            Preprocess().apply(tmp_path / name, small(3, 8, 8))
