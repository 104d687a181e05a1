"""What is stated of images at model_transform is kept, said, doubted or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

import qdqc
from qdqc.data.dataset import open_dataset
from qdqc.tools.model_transform import main as model_transform
from qdqc.tools.run_calibration import main as run_calibration

RGB = ["--pixel_format", "rgb"]


def saved(folder: Path, shape: list[int | str], elem: int = TensorProto.FLOAT) -> Path:
    """x of that shape, as float, times two -> y."""
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["f", "f"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", elem, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "net", [x], [y])
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), folder / "net.onnx")
    return folder / "net.onnx"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    array = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    (tmp_path / "photos").mkdir()
    Image.fromarray(array).save(tmp_path / "photos" / "a.png")
    return tmp_path / "photos"


def transformed(model: Path, *options: str) -> int:
    words = ["--model_def", str(model), "-o", str(model.with_suffix(".qir"))]
    return model_transform([*words, *options])


def sample(model: Path, photos: Path) -> np.ndarray:
    graph = qdqc.load(model.with_suffix(".qir")).graph
    return next(iter(open_dataset(photos, graph)))["x"]


def test_one_number_serves_all_channels(tmp_path: Path, photo: Path) -> None:
    model = saved(tmp_path, [1, 3, 4, 6])
    assert transformed(model, *RGB, "--mean", "127.5", "--scale", "0.0078125") == 0
    pixels = np.asarray(Image.open(photo / "a.png"), np.float32).transpose(2, 0, 1)[None]
    np.testing.assert_allclose(sample(model, photo), (pixels - 127.5) / 128, atol=1e-6)


@pytest.mark.parametrize("shape", [[1, 4, 6, 3], ["N", "H", "W", 3]])
def test_channels_that_stand_last_are_proposed_and_honoured(
    tmp_path: Path, photo: Path, capsys: pytest.CaptureFixture[str], shape: list[int | str]
) -> None:
    model = saved(tmp_path, shape)
    assert transformed(model) == 0
    assert "--channel_format nhwc" in capsys.readouterr().err
    assert transformed(model, *RGB) == 1
    assert "the shape says --channel_format nhwc" in capsys.readouterr().err
    assert transformed(model, *RGB, "--channel_format", "nhwc") == 0
    assert sample(model, photo).shape == (1, 4, 6, 3)


def test_an_input_of_bytes_takes_pixels(
    tmp_path: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = saved(tmp_path, [1, 3, 4, 6], TensorProto.UINT8)
    assert transformed(model, *RGB) == 0
    pixels = np.asarray(Image.open(photo / "a.png")).transpose(2, 0, 1)[None]
    np.testing.assert_array_equal(sample(model, photo), pixels)
    capsys.readouterr()
    assert transformed(model, *RGB, "--mean", "127", "--scale", "0.01") == 1
    assert "the input takes u8, which (pixel - mean) * scale" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("shape", "options", "reason"),
    [
        ([1, 3, 4], RGB, "no input takes images: 'x' f32[1,3,4]"),
        ([1, 3, 4, 6], [*RGB, "--channel_format", "none"], "none says that no input is an image"),
        ([1, 3, 4, 6], ["--mean", "1,2"], "--mean has 2 numbers"),
    ],
)
def test_options_that_nothing_honours_are_refused(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    shape: list[int | str],
    options: list[str],
    reason: str,
) -> None:
    assert transformed(saved(tmp_path, shape), *options) == 1
    assert reason in capsys.readouterr().err


def test_preprocessing_is_said_and_its_absence_is_warned_of(
    tmp_path: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = saved(tmp_path, [1, 3, 4, 6])
    words = ["--dataset", str(photo), "-o", str(tmp_path / "t"), "--no_cache"]
    plain = "images for 'x': bgr nchw, to 4x6 (bilinear), pixels of 0..255 as they are"
    assert transformed(model) == 0
    assert plain in capsys.readouterr().err
    assert run_calibration([str(model.with_suffix(".qir")), *words]) == 0
    said = capsys.readouterr().err
    assert plain in said
    assert "warning: NOBODY STATED THE PREPROCESSING of input 'x'" in said
    assert transformed(model, "--mean", "0", "--scale", "0.0039") == 0
    stated = "images for 'x': bgr nchw, to 4x6 (bilinear), (pixel - 0) * 0.0039"
    assert stated in capsys.readouterr().err
    assert run_calibration([str(model.with_suffix(".qir")), *words]) == 0
    said = capsys.readouterr().err
    assert stated in said
    assert "NOBODY" not in said
    assert transformed(model, "--mean", "0.0039", "--scale", "127") == 0
    assert "mean and scale look swapped" in capsys.readouterr().err
