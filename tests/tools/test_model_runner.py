"""model_runner as its users call it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qdqc.data.archive import Archive
from qdqc.tools.model_runner import main
from qdqc.tools.model_transform import main as transform
from qdqc.tools.qir_opt import main as qir_opt

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"


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


@pytest.fixture
def stages(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the digits network at every stage between float and deployed."""
    monkeypatch.chdir(tmp_path)
    for name in ("digits.qir", "digits.safetensors", "digits_int8.qir", "digits_int8.onnx"):
        (tmp_path / name).write_bytes((digits / name).read_bytes())
    (tmp_path / "digits_int8.safetensors").write_bytes(
        (digits / "digits_int8.safetensors").read_bytes()
    )
    calibrated = f'import-calibration{{table="{digits / "digits.cali_table"}"}}'
    for name, passes in (
        ("calibrated", calibrated),
        ("typed", f"{calibrated},assign-precision,quantize"),
        ("lowered", f"{calibrated},assign-precision,quantize,lower-to-qdq"),
    ):
        assert qir_opt(["digits.qir", "--passes", passes, "-o", f"{name}.qir", "-q"]) == 0
    np.savez("in.npz", image=Archive(DIGITS / "test.npz")["image"][:3])
    return tmp_path


def dumped(model: str, *options: str) -> Archive:
    output = f"{model}.npz"
    words = ["--input", "in.npz", "--model", model, "--output", output, "--dump_all_tensors", "-q"]
    assert main([*words, *options]) == 0
    return Archive(output)


def test_every_stage_gives_its_values_by_the_same_names(stages: Path) -> None:
    exact = dumped("digits.qir")
    calibrated = dumped("calibrated.qir")
    assert set(exact) == set(calibrated)
    for name, value in exact.items():
        np.testing.assert_array_equal(value, calibrated[name], err_msg=name)
    typed, lowered = dumped("typed.qir"), dumped("lowered.qir")
    assert set(typed) == set(lowered)
    for name, value in typed.items():
        np.testing.assert_array_equal(value, lowered[name], err_msg=name)
    shared = set(exact) & set(typed)
    assert len(shared) > 15
    for name in shared:
        noise = np.sum((exact[name] - typed[name]) ** 2) / np.sum(exact[name] ** 2)
        assert noise < 0.01, name


def test_the_deployed_file_gives_what_its_module_gives(stages: Path) -> None:
    module, file = dumped("digits_int8.qir"), dumped("digits_int8.onnx")
    shared = [n for n in module if n in file]
    assert len(shared) > 15
    for name in shared:
        np.testing.assert_allclose(module[name], file[name], atol=1e-5, err_msg=name)


@pytest.mark.parametrize("model", ["typed.qir", "lowered.qir", "digits_int8.onnx"])
def test_stored_integers_stand_for_the_dequantized_values(stages: Path, model: str) -> None:
    raw = dict(dumped(model, "--out_fixed"))
    real = dumped(model)
    integers = [n for n, value in raw.items() if value.dtype.kind in "iu" and n in real]
    assert len(integers) > 10
    for name in integers:
        codes, values = raw[name].astype(np.float64).reshape(-1), real[name].reshape(-1)
        assert raw[name].dtype in (np.uint8, np.int8)
        slope = np.polyfit(codes, values, 1)
        np.testing.assert_allclose(
            np.polyval(slope, codes), values, atol=1e-5 * np.abs(values).max(), err_msg=name
        )
    assert raw["logits"].shape == real["logits"].shape == (3, 10)


def test_an_interruption_leaves_no_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from qdqc.data.spool import Spool

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Spool, "add", stop)
    before = sorted(p.name for p in folder.iterdir())
    capsys.readouterr()
    assert main(["--input", "in.npz", "--model", "tiny.qir", "--output", "o.npz", "-q"]) == 130
    assert sorted(p.name for p in folder.iterdir()) == before


def test_a_full_disk_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    words = ["--input", "in.npz", "--model", "tiny.qir", "--output", "/dev/full", "-q"]
    capsys.readouterr()
    assert main(words) == 1
    assert "No space left on device" in capsys.readouterr().err
