"""model_inspect as its users call it: what it asks for, what it writes, and how it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from qdqc.tools.model_inspect import main

TEST = Path(__file__).resolve().parents[2] / "examples" / "digits" / "test.npz"


@pytest.fixture
def folder(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own with the files of the digits network."""
    for file in digits.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_difference_needs_no_samples(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--diff", "digits.qir", "digits_int8.qir", "--report", "r.json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "~ conv /block2/depth/act/Clip_output_0\n    weight     f32 -> i8, 128 scales " in out
    assert out.splitlines()[-1].startswith("precision f32 -> u8: ")
    assert max(map(len, out.splitlines())) <= 120
    report = json.loads((folder / "r.json").read_text())["difference"]
    assert report["removed"] == 0
    assert {"~ conv", "~ module"} <= {f"{c['sign']} {c['op']}" for c in report["changes"]}


def test_a_build_does_not_differ_from_itself_in_whatever_file(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--diff", "digits_int8.qir", "digits_int8.qir"]) == 0
    assert capsys.readouterr().out.startswith("no difference: ")
    assert main(["--diff", "digits_int8.qir", "digits_int8.onnx", "-v"]) == 0
    told = capsys.readouterr().out
    assert "weight" not in told
    assert "scale " not in told


def test_exports_of_one_stage(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--reference", "digits.qir", "--dot", "f.dot", "--onnx", "f.onnx"]) == 0
    assert main(["--quantized", "digits_int8.qir", "--dot", "q.dot", "--onnx", "q.onnx"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "wrote q.onnx: it runs as the model does" in err
    assert "u8[N,32,16,16] q(scale = " in (folder / "q.dot").read_text()
    assert "u8" not in (folder / "f.dot").read_text()
    conv = next(n for n in onnx.load("q.onnx").graph.node if n.op_type == "Conv")
    notes = {p.key: p.value for p in conv.metadata_props}
    assert notes["qdqc.precision"] == "u8"
    assert notes["qdqc.weight"].startswith("i8[32,1,3,3], 32 scales ")


def test_exports_hold_what_was_measured(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = ["--reference", "digits.qir", "--quantized", "digits_int8.onnx"]
    given = [*models, "--input", str(TEST), "--input_num", "2", "-q", "--report", "r.json"]
    assert main([*given, "--onnx", "q.onnx"]) == 0
    assert capsys.readouterr().out.startswith("2 samples, ")
    values = {v["name"]: v["sqnr"] for v in json.loads(Path("r.json").read_text())["values"]}
    infos = {i.name: i for i in onnx.load("q.onnx").graph.output}
    notes = {p.key: p.value for p in infos["logits"].metadata_props}
    assert notes["qdqc.sqnr"] == f"{values['logits']:.2f}"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--reference and --quantized and --input must be given"),
        (["--reference", "digits.qir", "--input", "i.npz"], "--quantized must be given"),
        (["--diff", "digits.qir", "digits_int8.qir", "-o", "p.html"], "--reference and"),
        (["--dot", "d.dot"], "no model is given to write as another format"),
        (["--diff", "digits.qir", "none.qir"], "none.qir: error: can't read the text: No such"),
        (["--diff", "digits.qir", "digits.cali_table"], "neither a .qir nor an .onnx file"),
        (["--reference", "digits.qir", "--onnx", "digits.qir"], "is also an input"),
        (["--reference", "digits.qir", "--dot", "no/d.dot"], "there is no folder 'no'"),
        (["--quantized", "none.onnx", "--dot", "d.dot"], "none.onnx: error: no such file"),
    ],
)
def test_errors_write_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert main(words) == 1
    err = capsys.readouterr().err
    assert message in err
    assert "note: " in err
    assert "Traceback" not in err
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_a_report_of_a_search_is_read_before_the_models_run(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("s.json").write_text("{}")
    models = ["--reference", "digits.qir", "--quantized", "digits_int8.onnx"]
    assert main([*models, "--input", str(TEST), "--search", "s.json"]) == 1
    assert "s.json: error: this is not a report of a search" in capsys.readouterr().err


def test_a_full_disk_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    assert main(["--reference", "digits.qir", "--dot", "/dev/full"]) == 1
    assert "No space left on device" in capsys.readouterr().err


def test_models_in_the_wrong_places_are_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for reference in ("digits_int8.onnx", "digits_int8.qir"):
        models = ["--reference", reference, "--quantized", "digits.qir"]
        assert main([*models, "--input", str(TEST), "-q"]) == 1
        assert "the model of --reference is quantized" in capsys.readouterr().err
