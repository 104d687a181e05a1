"""npz_tool as its users call it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from compiler.data.archive import Archive
from tools.npz_tool import main


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", x=np.array([1.0, 2.0]), y=np.array([1.0, 1.0]), extra=np.ones(1))
    np.savez("b.npz", y=np.array([1.0, 1.5]), x=np.array([1.0, 2.0]), lost=np.ones(1))
    return tmp_path


def test_compare_fails_with_one_and_names_the_first_and_the_worst(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["compare", "a.npz", "b.npz", "--save", "f.csv", "--report", "r.json"]
    assert main(args) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[:2] == [
        "2 compared, 1 passed, 1 failed at tolerance 0.99,0.99",
        "first below tolerance:",
    ]
    assert out.splitlines()[-1] == "npz compare FAILED"
    assert "1 only in b.npz, 1 only in a.npz" in err
    assert (folder / "f.csv").read_text().splitlines()[1].startswith("y,NOT_SIMILAR,false,")
    report = json.loads((folder / "r.json").read_text())
    assert (report["compared"], report["failed"], report["first_failure"]) == (2, 1, "y")


def test_compare_passes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "a.npz", "b.npz", "--tolerance", "0.9,0.6"]) == 0
    assert main(["compare", "a.npz", "b.npz", "--excepts", "y"]) == 0
    capsys.readouterr()
    assert main(["compare", "a.npz", "a.npz", "-v"]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()[:3]] == ["EQUAL"] * 3
    assert err == ""
    assert main(["-v", "compare", "a.npz", "b.npz", "--excepts", "y"]) == 0
    assert "only b.npz has 'lost'" in capsys.readouterr().err


def test_dump(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dump", "a.npz"]) == 0
    assert capsys.readouterr().out == "x  float64[2]\ny  float64[2]\nextra  float64[1]\n"
    assert main(["dump", "a.npz", "x", "1"]) == 0
    assert capsys.readouterr().out.startswith("x  float64[2]\n1.0 ...\nall: min 1  max 2")


def test_extract_merge_rename(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["extract", "a.npz", "part.npz", "y,x"]) == 0
    assert list(Archive("part.npz")) == ["y", "x"]
    assert main(["merge", "a.npz", "b.npz", "all.npz"]) == 0
    merged = Archive("all.npz")
    assert set(merged) == {"x", "y", "extra", "lost"}
    assert merged["y"].tolist() == [1.0, 1.5]
    assert main(["rename", "a.npz", "named.npz", "x", "z"]) == 0
    assert list(Archive("named.npz")) == ["z", "y", "extra"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare", "none.npz", "b.npz"], "none.npz: error: can't read the file: No such file"),
        (["compare", "a.npz", "text.npz"], "text.npz: error: this is no npz file"),
        (["compare", "a.npz", "c.npz"], "the files share no name: it has 'x', 'y', 'extra'"),
        (["compare", "a.npz", "b.npz", "--excepts", "*"], "--excepts leaves nothing"),
        (["compare", "a.npz", "b.npz", "--save", "no/f.csv"], "there is no folder 'no'"),
        (["compare", "a.npz", "b.npz", "--save", "a.npz"], "is also an input"),
        (["dump", "a.npz", "X1"], "there is no array 'X1'"),
        (["extract", "a.npz", "o.npz", "xy"], "there is no array 'xy'"),
        (["rename", "a.npz", "o.npz", "x", "y"], "there is already an array 'y'"),
        (["rename", "a.npz", "a.npz", "x", "z"], "is also an input"),
        (["merge", "a.npz", "b.npz", "b.npz"], "is also an input"),
    ],
)
def test_errors_write_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    (folder / "text.npz").write_text("hello")
    np.savez("c.npz", other=np.ones(1))
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert main(words) == 1
    err = capsys.readouterr().err
    assert message in err
    assert "note: " in err
    assert "Traceback" not in err
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cmopare", "a"], "unknown command 'cmopare'; did you mean 'compare'?"),
        ([], "the following arguments are required: COMMAND"),
        (["compare", "a.npz"], "the following arguments are required: B.npz"),
        (["compare", "a", "b", "--tolerance", "1"], "'1' is no pair of similarities"),
    ],
)
def test_usage(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_compare_loads_neither_onnx_nor_onnxruntime(folder: Path) -> None:
    code = (
        "import sys; from tools.npz_tool import main; code = main(['compare', 'a.npz', 'a.npz'])\n"
        "print(code, [m for m in ('onnx', 'onnxruntime', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"
