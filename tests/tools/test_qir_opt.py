"""The qir_opt command from its arguments to its exit code."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from qdqc.text.qir_files import load
from qdqc.tools.qir_opt import main

TEXT = """\
module @tiny {
  graph (%x : f32[2]) -> (%y) {
    %a = relu(%x) : f32[2] loc("/a")
    %y = tanh(%a) : f32[2] loc("/y")
  }
}
"""

PLUGIN = """\
import numpy as np
from qdqc.ops import Add, Relu
from qdqc.pipeline.pass_ import Pass
from qdqc.rewrite.pattern import PatternPass, rewrites

class AddBig(PatternPass):
    "Turn relu into the addition of a large constant."
    name = "q-add-big"
    size: int = 64

    @rewrites(Relu)
    def add(self, node, rw):
        big = rw.constant(np.arange(self.size, dtype=np.float32), name="big")
        return rw.op(Add(), node.operands[0], big, type=node.result.type)

class Warn(Pass):
    "Warn about each node."
    name = "q-warn"

    def run(self, graph, ctx):
        for node in graph.nodes():
            ctx.warn("seen", node, "a remark")
        return 0

class Crash(Pass):
    "Fail."
    name = "q-crash"

    def run(self, graph, ctx):
        raise IndexError("no such thing")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "a.qir").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("plugin") / "q.py"
    path.write_text(PLUGIN)
    return str(path)


def test_text_in_text_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["a.qir"]) == 0
    assert capsys.readouterr() == (TEXT, "")


def test_stdin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(TEXT))
    assert main(["-"]) == 0
    assert capsys.readouterr().out == TEXT


def test_an_error_in_the_text_is_located(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a.qir").write_text(TEXT.replace("tanh", "tahn"))
    assert main(["a.qir"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("a.qir:4:10: error: unknown op 'tahn'; did you mean 'tan'?\n")


def test_a_module_that_does_not_hold_together_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "a.qir").write_text(TEXT.replace("relu(%x) : f32[2]", "relu(%x) : f32[3]"))
    assert main(["a.qir"]) == 1
    assert capsys.readouterr().err.startswith("a.qir:3:10: error: 'relu': ")


def test_a_missing_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["b.qir"]) == 1
    assert "b.qir: error: can't read the text: No such file" in capsys.readouterr().err


def test_output_goes_to_a_file_with_its_sidecar(
    folder: Path, plugin: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = TEXT.replace("f32[2]", "f32[64]")
    (folder / "a.qir").write_text(text)
    assert main(["a.qir", "--plugin", plugin, "--passes", "q-add-big", "-o", "b.qir"]) == 0
    assert capsys.readouterr() == ("", "")
    assert load("b.qir").constants["big"].data.array().tolist() == list(range(64))
    assert (folder / "b.safetensors").exists()


def test_an_input_is_not_written_over(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["a.qir", "-o", "./a.qir"]) == 1
    assert "is also an input" in capsys.readouterr().err
    assert (folder / "a.qir").read_text() == TEXT


def test_new_contents_are_elided_on_stdout_with_a_warning(
    folder: Path, plugin: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "a.qir").write_text(TEXT.replace("f32[2]", "f32[64]"))
    args = ["--plugin", plugin, "--passes", "q-add-big"]
    assert main(["a.qir", *args]) == 0
    out, err = capsys.readouterr()
    assert "const %big : f32[64] = elided(" in out
    assert err.startswith("warning: 1 constants that passes made are elided on stdout")
    assert main(["a.qir", *args, "-qq"]) == 0
    assert capsys.readouterr().err == ""


def test_contents_of_the_inputs_sidecar_stay_references(
    folder: Path, plugin: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "a.qir").write_text(TEXT.replace("f32[2]", "f32[64]"))
    main(["a.qir", "--plugin", plugin, "--passes", "q-add-big", "-o", "b.qir"])
    assert main(["b.qir"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out == (folder / "b.qir").read_text()
    assert main(["b.qir", "--elide-weights"]) == 0
    assert "elided(" in capsys.readouterr().out


def test_split_input(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "s.qir").write_text(f"{TEXT}// -----\n{TEXT.replace('tanh', 'tahn')}// -----\n{TEXT}")
    assert main(["s.qir", "--split-input-file"]) == 1
    out, err = capsys.readouterr()
    assert out == f"{TEXT}// -----\n{TEXT}"
    assert err.startswith("s.qir:11:10: error: unknown op 'tahn'")


EXPECTING = """\
module @tiny {
  graph (%x : f32[2]) -> (%y) {
    // expected-warning@+2 {{seen}}
    // expected-note@+1 {{a remark}}
    %a = relu(%x) : f32[2]
    // expected-warning-re@below {{s[ea]en}}
    %y = tanh(%a) : f32[2]
  }
}
// -----
module @bad {
  graph (%x : f32[2]) -> (%y) {
    %y = tahn(%x) : f32[2] // expected-error {{unknown op 'tahn'}}
  }
}
"""


def test_expected_diagnostics(
    folder: Path, plugin: str, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["e.qir", "--split-input-file", "--verify-diagnostics"]
    args += ["--plugin", plugin, "--passes", "q-warn"]
    (folder / "e.qir").write_text(EXPECTING)
    assert main(args) == 0
    assert capsys.readouterr() == ("", "")

    (folder / "e.qir").write_text(EXPECTING.replace("{{seen}}", "{{unseen}}"))
    assert main(args) == 1
    err = capsys.readouterr().err
    assert "unexpected warning: e.qir:5:10: warning: 'relu': seen" in err
    assert "e.qir: line 3: the warning expected here did not come" in err

    (folder / "e.qir").write_text(EXPECTING.replace("tahn(", "tanh("))
    assert main(args) == 1
    err = capsys.readouterr().err
    assert "line 13: the error expected here did not come" in err
    assert "unexpected warning: e.qir:13:10" in err


def test_a_defect_of_a_plugin_is_the_plugins(
    folder: Path, plugin: str, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["a.qir", "--plugin", plugin, "--passes", "q-crash", "--crash-reproducer", "c.qir"]
    assert main(args) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert re.match(rf"{plugin}:\d+: error: the file fails: IndexError: no such thing\n", err)
    assert "found after pass 'q-crash' (1 of 1); reproduce: qir_opt c.qir" in err
    assert main([*args, "-v"]) == 1
    assert "Traceback" in capsys.readouterr().err
    assert load("c.qir") == load("a.qir")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--pases", "x"], "unknown option '--pases'; did you mean '--passes'?"),
        (["--pass", "x"], "unknown option '--pass'"),
        (["a", "b"], "unknown argument 'b'"),
        (["--passes"], "expected one argument"),
    ],
)
def test_usage_errors_leave_with_two(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(args) == 2
    assert message in capsys.readouterr().err


def test_an_unknown_pass_leaves_with_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["a.qir", "--passes", "canonicalise"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("--passes:1:1: error: unknown pass 'canonicalise'; did you mean")


def test_dashes_and_underscores_are_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["a.qir", "--print_ir_after_all", "--time_passes"]) == 0
    assert "seconds" in capsys.readouterr().err


def test_lists(plugin: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--plugin", plugin, "--list-passes"]) == 0
    out = capsys.readouterr().out
    rows = out.strip().split("\n")
    listed = dict(line.split(maxsplit=1) for line in rows if not line.startswith(" "))
    at = next(i for i, line in enumerate(rows) if line.startswith("q-add-big"))
    assert rows[at + 1].strip() == "{size=64}"
    assert listed["q-warn"] == "Warn about each node."
    assert listed["@int8"].endswith("lower-to-qdq")
    assert all(listed.values())
    assert main(["--list-ops"]) == 0
    assert "conv(x, weight, bias?) -> (y)" in capsys.readouterr().out


def test_help_states_defaults_and_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "example:\n  qir_opt model.qir" in out
    assert "(default: -)" in out or "stdin" in out
    assert out.count("(default:") >= 15


def test_the_report(folder: Path) -> None:
    assert main(["a.qir", "--report", "r.json", "-o", "b.qir"]) == 0
    found = json.loads((folder / "r.json").read_text())
    assert found["exit_code"] == 0
    assert 0 < found["seconds"] < 3600
    assert found["peak_memory_bytes"] > 2**20
    assert main(["missing.qir", "--report", "r.json"]) == 1
    found = json.loads((folder / "r.json").read_text())
    assert found["exit_code"] == 1
    assert "missing.qir" in found["error"]


def test_a_reader_that_leaves_early_is_no_failure(folder: Path) -> None:
    command = f"{Path(sys.executable).parent / 'qir_opt'} --list-ops | head -1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
