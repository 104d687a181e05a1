from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from photos import (
    PREPROCESS_OPTIONS,
    VIEWS,
    centre,
    centres,
    labelled_photos,
    offsets,
    photo_files,
    resized,
    views,
)
from PIL import Image

from qdqc.data.preprocess import Preprocess
from qdqc.ir.types import Elem, TensorType


def save_photo(path: Path, width: int, height: int, mode: str = "RGB") -> Path:
    rng = np.random.default_rng(width)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    coarse.resize((width, height), Image.Resampling.BILINEAR).convert(mode).save(path)
    return path


@pytest.mark.parametrize(
    ("size", "scaled"),
    [((500, 333), (384, 256)), ((288, 400), (256, 355)), ((256, 256), (256, 256))],
)
def test_the_shorter_side_becomes_256(
    tmp_path: Path, size: tuple[int, int], scaled: tuple[int, int]
) -> None:
    assert resized(save_photo(tmp_path / "a.jpg", *size)).size == scaled


def test_offsets_are_centre_and_corners() -> None:
    assert offsets(256, 384) == [(16, 80), (0, 0), (0, 160), (32, 0), (32, 160)]
    assert offsets(224, 224) == [(0, 0)] * 5


def test_the_centre_of_an_odd_rest_is_rounded_half_to_even() -> None:
    assert offsets(224 + 1, 224 + 3)[0] == (0, 2)


def test_ten_views_are_five_cuts_and_their_mirror_images(tmp_path: Path) -> None:
    path = save_photo(tmp_path / "a.jpg", 400, 300)
    found = views(path)
    assert found.shape == (VIEWS, 3, 224, 224)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[1::2], found[::2, ..., ::-1])
    whole = (np.asarray(resized(path), np.float32) - 127) / 128
    np.testing.assert_allclose(found[2], whole[:224, :224].transpose(2, 0, 1), atol=1e-6)
    np.testing.assert_allclose(found[8], whole[-224:, -224:].transpose(2, 0, 1), atol=1e-6)
    assert len({view.tobytes() for view in found}) == VIEWS


def test_fewer_views_are_the_first_ones(tmp_path: Path) -> None:
    path = save_photo(tmp_path / "a.jpg", 300, 400)
    np.testing.assert_array_equal(views(path, 3), views(path)[:3])
    np.testing.assert_array_equal(centre(path), views(path, 1))


@pytest.mark.parametrize(("width", "height"), [(500, 333), (333, 500), (259, 301)])
def test_the_centre_view_is_what_the_commands_make_of_a_photo(
    tmp_path: Path, width: int, height: int
) -> None:
    """Both tools must see the same samples: the options say the same as this module."""
    path = save_photo(tmp_path / "a.jpg", width, height)
    given = dict(zip(PREPROCESS_OPTIONS, (*PREPROCESS_OPTIONS[1:], ""), strict=True))
    preprocess = Preprocess(
        pixel_format="rgb",
        interpolation="bicubic",
        resize_dims=tuple(int(n) for n in given["--resize_dims"].split(",")),
        keep_aspect_ratio="--keep_aspect_ratio" in given,
        keep_ratio_mode="short_side_scale",
        mean=tuple(float(n) for n in given["--mean"].split(",")),
        scale=tuple(float(n) for n in given["--scale"].split(",")),
    )
    assert (given["--pixel_format"], given["--interpolation"]) == ("rgb", "bicubic")
    assert given["--keep_ratio_mode"] == "short_side_scale"
    wanted = preprocess.apply(path, TensorType(Elem.F32, (1, 3, 224, 224)))
    np.testing.assert_allclose(centre(path), wanted, atol=1e-6)


def test_a_grey_photo_gets_three_channels(tmp_path: Path) -> None:
    found = centre(save_photo(tmp_path / "a.jpg", 300, 300, "L"))
    np.testing.assert_array_equal(found[0, 0], found[0, 2])


def test_labels_are_those_of_the_split(tmp_path: Path) -> None:
    rows = ["split\tfile\tclass_index", "calib\ta.jpg\t3", "val\tb.jpg\t6", "val\tc.jpg\t900"]
    (tmp_path / "labels.tsv").write_text("\n".join(rows) + "\n")
    val = tmp_path / "val"
    assert labelled_photos(tmp_path, "val") == [(val / "b.jpg", 6), (val / "c.jpg", 900)]


def test_photos_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name, width in (("b.jpg", 300), ("a.JPEG", 310)):
        save_photo(tmp_path / name, width, 300)
    (tmp_path / "notes.txt").write_text("no photo")
    files = photo_files(tmp_path)
    assert [p.name for p in files] == ["a.JPEG", "b.jpg"]
    samples = list(centres(files))
    np.testing.assert_array_equal(samples[1]["input"], centre(tmp_path / "b.jpg"))
