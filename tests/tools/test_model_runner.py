"""model_runner as its users call it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compiler.data.archive import Archive
from compiler.diagnostics import QdqcError
from tools.model_runner import joined, main
from tools.model_transform import main as transform


@pytest.fixture
def folder(
    tiny_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_data: Path
) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.onnx").write_bytes(tiny_onnx.read_bytes())
    (tmp_path / "in.npz").write_bytes(tiny_data.read_bytes())
    shapes = ["--input_shapes", "[[1,3,8,8]]", "--pixel_format", "rgb", "--scale", ".01,.01,.01"]
    assert transform(["--model_def", "tiny.onnx", "-o", "tiny.qir", "-q", *shapes]) == 0
    return tmp_path


def test_the_module_gives_what_the_file_gives(folder: Path) -> None:
    for model, output in (("tiny.onnx", "a.npz"), ("tiny.qir", "b.npz")):
        words = ["--input", "in.npz", "--model", model, "--output", output, "-q"]
        assert main([*words, "--dump_all_tensors", "--report", "r.json"]) == 0
    one, other = Archive("a.npz"), Archive("b.npz")
    assert set(other) == {"x", "r1", "c2", "r2", "c3", "p", "f", "y"}
    assert set(one) - set(other) == {"c1", "a"}
    for name, value in other.items():
        np.testing.assert_allclose(value, one[name], atol=1e-4, err_msg=name)
    report = json.loads(Path("r.json").read_text())
    assert report["samples"] == 16, "the module takes one sample at a time"
    assert report["values"]["y"] == {"shape": [16, 4], "type": "float32"}


def test_only_outputs_by_default(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--input", "in.npz", "--model", "tiny.qir", "--output", "o.npz"]) == 0
    assert list(Archive("o.npz")) == ["y"]
    assert capsys.readouterr().err == "wrote o.npz: 1 values of 16 samples\n"


def test_images_are_prepared_as_the_module_says(folder: Path) -> None:
    Image.new("RGB", (8, 8), (100, 50, 0)).save("i.png")
    words = ["--model", "tiny.qir", "--dump_all_tensors", "--output", "o.npz"]
    assert main(["--input", "i.png", *words]) == 0
    x = Archive("o.npz")["x"]
    np.testing.assert_allclose(x[0, :, 3, 3], [1.0, 0.5, 0.0], rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--model", "none.qir"], "none.qir: error: can't read the text: No such file"),
        (["--model", "none.onnx"], "none.onnx: error: no such file"),
        (["--model", "in.npz"], "in.npz: error: the model is neither a .qir nor an .onnx file"),
        (["--input", "none.npz"], "none.npz: error: there is no such file or folder"),
        (["--input", "tiny.qir"], "tiny.qir: error: the file is neither an image nor npz nor npy"),
        (["--input", "bad.npz"], "no array for the input 'x'; the data have 'z'"),
        (["--output", "in.npz"], "the output 'in.npz' is also an input"),
        (["--output", "tiny.qir"], "the output 'tiny.qir' is also an input"),
        (["--output", "no/o.npz"], "no/o.npz: error: can't write the file: there is no folder"),
        (["--output", "dir"], "dir: error: can't write the file: it is a folder"),
    ],
)
def test_errors_write_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], change: list[str], message: str
) -> None:
    np.savez("bad.npz", z=np.ones(1))
    (folder / "dir").mkdir()
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    options = {"--input": "in.npz", "--model": "tiny.qir", "--output": "o.npz"}
    options[change[0]] = change[1]
    capsys.readouterr()
    assert main([word for pair in options.items() for word in pair]) == 1
    err = capsys.readouterr().err
    assert message in err
    assert "note: " in err
    assert "Traceback" not in err
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} == before


def test_samples_are_joined() -> None:
    found = joined([{"a": np.ones((1, 2)), "s": np.float32(1)}] * 3)
    assert found["a"].shape == (3, 2)
    assert found["s"].tolist() == [1, 1, 1]
    alone = {"s": np.float32(1)}
    assert joined([alone]) == alone
    with pytest.raises(QdqcError, match="'%a' has shape"):
        joined([{"a": np.ones((1, 2))}, {"a": np.ones((1, 3))}])
