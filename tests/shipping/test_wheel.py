"""The wheel holds all of qdqc and nothing else, and works where no checkout is near."""

from __future__ import annotations

import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from environments import ROOT, SOURCES, Environment

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
COMMANDS = tuple(PROJECT["scripts"])
DIGITS = ROOT / "examples" / "digits"
HOSTILE = ("compiler.py", "passes/__init__.py", "tools/__init__.py", "tools/command.py")

PLUGIN = '''\
from qdqc import Node, PatternPass, Rewriter, Value, rewrites
from qdqc.ops import Clip, Relu


class ReluToClip(PatternPass):
    """Turn relu into clip."""

    name = "relu-to-clip"

    @rewrites(Relu)
    def to_clip(self, node: Node[Relu], rw: Rewriter) -> Value | None:
        return rw.op(Clip(min=0.0), node.need("x"))
'''
RELU = """\
module @one {opsets = {"" = 17}} {
  graph (%x : f32[1,3,8,8]) -> (%y) {
    %y = relu(%x) : f32[1,3,8,8]
  }
}
"""
QUANTIZE = """\
import sys
import numpy as np
import qdqc
arrays = np.load(sys.argv[2])
result = qdqc.quantize(sys.argv[1], [{k: v[:8] for k, v in arrays.items()}])
print(qdqc.__file__, result.report, sep="\\n")
"""


@pytest.fixture(params=["empty", "hostile"])
def at(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The current folder: an empty one, and a project whose modules must not be imported."""
    if request.param == "hostile":
        for file in HOSTILE:
            (tmp_path / file).parent.mkdir(exist_ok=True)
            (tmp_path / file).write_text("raise SystemExit('the wrong module was imported')\n")
    return tmp_path


def test_it_holds_each_file_of_the_sources_and_nothing_else(wheel: Path, sources: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {n for n in archive.namelist() if not n.startswith(f"qdqc-{PROJECT['version']}.")}
    wanted = {
        f"{package}/{file.relative_to(sources / folder).as_posix()}"
        for folder, package in SOURCES.items()
        for file in (sources / folder).rglob("*")
        if file.is_file() and file.suffix != ".pyc"
    }
    assert names == wanted
    data = {"qdqc/py.typed", "qdqc/text/qir.lark", "qdqc/report/page/page.html"}
    assert data <= names


def test_there_is_one_version(wheel: Path, installed: Environment, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = f"qdqc-{PROJECT['version']}.dist-info/METADATA"
        stated = Parser().parsestr(archive.read(metadata).decode())["Version"]
    code = "import qdqc; print(qdqc.__version__)"
    assert installed.output("python", "-c", code, at=tmp_path) == f"{stated}\n"
    for command in COMMANDS:
        assert installed.output(command, "--version", at=tmp_path) == f"{command} {stated}\n"


def test_every_command_starts(installed: Environment, at: Path) -> None:
    for command in COMMANDS:
        text = installed.output(command, "--help", at=at)
        assert text.startswith(f"usage: {command} ")
        assert installed.output("python", "-m", f"qdqc.tools.{command}", "--help", at=at) == text


def test_the_whole_flow_and_its_page(installed: Environment, at: Path) -> None:
    calib = DIGITS / "calib.npz"
    model = ("--model_def", DIGITS / "digits.onnx", "--pixel_format", "gray")
    scaling = ("--mean", "127.5", "--scale", "0.0078125", "-o", "d.qir")
    installed.output("model_transform", *model, *scaling, at=at)
    installed.output("run_calibration", "d.qir", "--dataset", calib, "-o", "d.cali_table", at=at)
    table = ("--mlir", "d.qir", "--calibration_table", "d.cali_table")
    installed.output("model_deploy", *table, "--model", "d_int8.onnx", at=at)
    both = ("--reference", "d.qir", "--quantized", "d_int8.onnx", "--input", DIGITS / "photos")
    installed.output("model_inspect", *both, "-o", "page.html", at=at)
    assert "</html>" in (at / "page.html").read_text("utf-8")


def test_python_quantizes(installed: Environment, at: Path) -> None:
    given = ("-c", QUANTIZE, DIGITS / "digits.onnx", DIGITS / "calib.npz")
    file, _, report = installed.output("python", *given, at=at).partition("\n")
    assert Path(file).is_relative_to(installed.folder)
    assert "integer: 14 of 14" in report


def test_a_plugin_is_run(installed: Environment, at: Path) -> None:
    (at / "my_pass.py").write_text(PLUGIN)
    (at / "relu.qir").write_text(RELU)
    given = ("relu.qir", "--plugin", "my_pass.py", "--passes", "relu-to-clip")
    assert "%y = clip(%x) {min = 0} :" in installed.output("qir_opt", *given, at=at)
