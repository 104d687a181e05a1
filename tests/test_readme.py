"""The README shows what the commands print: its walk is run, and its code is loaded."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
BIN = Path(sys.executable).parent


def fences(language: str) -> list[str]:
    """Contents of the fenced blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def masked(text: str) -> str:
    """The text with numbers as #: they may differ in their last digits between processors."""
    return re.sub(r"\d[\d,.]*", "#", text)


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder after the walk, and the walk as the commands print it now."""
    home = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "examples", home / "examples")
    folder = home / ".demo"
    folder.mkdir()
    said = ""
    walk = next(f for f in fences("") if f.startswith("$ model_transform"))
    for line in walk.splitlines():
        if line.startswith("$ "):
            name, *arguments = shlex.split(line[2:])
            command = [str(BIN / name), *arguments]
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, env=os.environ
            )
            assert done.returncode == 0, done.stderr
            said += f"{line}\n{done.stdout}{done.stderr}"
    return folder, said


def test_the_walk_prints_what_the_readme_says(walked: tuple[Path, str]) -> None:
    walk = next(f for f in fences("") if f.startswith("$ model_transform"))
    assert masked(walked[1]) == masked(walk)


@pytest.mark.parametrize("stage", [0, 1])
def test_the_ir_is_that_of_the_example(walked: tuple[Path, str], stage: int) -> None:
    folder, _ = walked
    shown = [f for f in fences("") if f.startswith("%/block2")][stage]
    table = 'table="digits.cali_table"'
    pipeline = f"import-calibration{{{table}}},assign-precision,correct-bias{{{table}}},quantize"
    command = [str(BIN / "qir_opt"), "digits.qir", "--passes", pipeline if stage else ""]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    printed = {masked(re.sub(r" loc\(.*", "", line).strip()) for line in done.stdout.splitlines()}
    for line in shown.splitlines():
        assert masked(line) in printed


def test_the_pass_is_a_pass(walked: tuple[Path, str]) -> None:
    folder, _ = walked
    code = next(f for f in fences("python") if "PatternPass" in f)
    (folder / "my_pass.py").write_text(code)
    command = [str(BIN / "qir_opt"), "digits.qir", "--plugin", "my_pass.py"]
    run = [*command, "--passes", "relu-to-clip", "--elide-weights"]
    done = subprocess.run(run, cwd=folder, capture_output=True, text=True, check=True)
    assert 'relu-to-clip"' in done.stdout


def test_the_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "examples/digits/digits.onnx", tmp_path)
    whole, by_step = (f for f in fences("python") if "PatternPass" not in f)
    given = {"onnx": onnx, "dataset": ROOT / "examples/digits/calib.npz"}
    exec(compile(whole, "README.md", "exec"), given)
    out = capsys.readouterr().out
    assert "integer: 14 of 14 Conv, ConvTranspose, MatMul and Gemm" in out
    whole_bytes = (tmp_path / "digits_int8.onnx").read_bytes()
    exec(compile(by_step, "README.md", "exec"), given)
    assert capsys.readouterr().out.startswith("module @digits")
    assert (tmp_path / "digits_int8.onnx").read_bytes() != whole_bytes, "the stem is float"


def test_the_commands_of_the_readme_are_targets_of_make() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert f"\n{target}:" in makefile
