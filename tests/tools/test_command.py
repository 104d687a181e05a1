"""The frame of all commands: exit codes, and what a command takes."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qdqc.diagnostics import QdqcError
from qdqc.tools.command import CommandParser, Invocation, execute
from qdqc.tools.resources import PeakMemory, process_seconds


def parser() -> CommandParser:
    made = CommandParser("try_it", "Try it.", "try_it --bins 3")
    made.add_argument("--histogram_bin_num", type=int, default=2048, help="bins of the histogram")
    made.add_argument("--tune", action="store_true", help="tune")
    return made


def raising(error: BaseException) -> Any:
    def action(invocation: Invocation) -> int:
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (QdqcError("bad input", file="a.onnx"), 1, "a.onnx: error: bad input\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "out.onnx"),
            1,
            "out.onnx: error: No space left on device\nnote: free space on the disk",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 1, "x: error: Permission denied"),
        (MemoryError("8 GB"), 1, "error: not enough memory: 8 GB"),
        (BrokenPipeError(), 0, ""),
    ],
)
def test_exit_codes(
    error: BaseException, code: int, told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert execute(parser(), raising(error), []) == code
    err = capfd.readouterr().err
    assert err.startswith(told)
    assert "Traceback" not in err


@pytest.mark.parametrize("error", [ValueError("odd"), OSError("odd"), AssertionError("odd")])
def test_defects_leave_with_three(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(parser(), raising(error), []) == 3
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert "internal error in try_it" in err
    assert "--crash-reproducer" in err


def test_the_action_gives_the_code() -> None:
    assert execute(parser(), lambda _: None, []) == 0
    assert execute(parser(), lambda _: 1, []) == 1


@pytest.mark.parametrize("word", ["--histogram_bin_num", "--histogram-bin-num"])
def test_both_spellings(word: str) -> None:
    for args in ([word, "7"], [f"{word}=7"]):
        seen: list[int] = []
        assert execute(parser(), lambda i, s=seen: s.append(i.args.histogram_bin_num), args) == 0
        assert seen == [7]


def test_options_are_not_abbreviated(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(parser(), lambda _: 0, ["--histogram", "3"]) == 2
    assert "unknown option '--histogram'" in capsys.readouterr().err


def test_help_states_every_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(parser(), lambda _: 0, ["--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "bins of the histogram (default: 2048)" in out
    assert "tune (default: off)" in out
    assert "example: try_it --bins 3" in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(parser(), lambda _: 0, ["--version"]) == 0
    assert capsys.readouterr().out.startswith("try_it ")


def test_verbosity(capsys: pytest.CaptureFixture[str]) -> None:
    def action(invocation: Invocation) -> None:
        invocation.tell("progress")
        invocation.warn("odd")

    shown = {}
    for flags in ([], ["-q"], ["-qq"], ["-v"]):
        execute(parser(), action, flags)
        shown["".join(flags)] = capsys.readouterr().err
    assert shown == {
        "": "progress\nwarning: odd\n",
        "-q": "warning: odd\n",
        "-qq": "",
        "-v": "progress\nwarning: odd\n",
    }


def test_the_report_takes_numpy_and_is_written_on_failure(tmp_path: Path) -> None:
    def action(invocation: Invocation) -> int:
        invocation.report["cos"] = np.float32(0.5)
        invocation.report["rows"] = np.arange(2)
        invocation.report["path"] = tmp_path
        return 1

    path = tmp_path / "r.json"
    assert execute(parser(), action, ["--report", str(path)]) == 1
    found = json.loads(path.read_text())
    assert found["cos"] == 0.5
    assert found["rows"] == [0, 1]
    assert found["path"] == str(tmp_path)
    assert (found["command"], found["exit_code"]) == ("try_it", 1)


def test_a_report_that_cant_be_written_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(parser(), lambda _: 0, ["--report", "/no/such/folder/r.json"]) == 1
    assert "there is no folder '/no/such/folder'" in capsys.readouterr().err


def test_seconds_count_from_the_start_of_the_process() -> None:
    code = (
        "import time; time.sleep(0.3)\n"
        "from qdqc.tools.resources import process_seconds\n"
        "print(process_seconds())"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    outside = time.perf_counter() - start
    assert 0.3 <= float(done.stdout) <= outside + 0.02
    assert process_seconds() > 0


def test_memory_counts_children_and_keeps_the_peak() -> None:
    memory = PeakMemory()
    memory.start()
    code = "x = bytearray(b'1') * 60_000_000; import time; time.sleep(0.4)"
    subprocess.run([sys.executable, "-c", code], check=True)
    block = np.ones(40_000_000, np.uint8)
    time.sleep(0.15)
    held = int(block[0])
    del block
    peak = memory.stop()
    assert held == 1
    assert peak > 60_000_000
    assert peak < 4_000_000_000


def test_mapped_files_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "big"
    path.write_bytes(b"1" * 80_000_000)
    before = PeakMemory().stop()
    mapped = np.memmap(path, np.uint8, "r")
    assert int(mapped.sum(dtype=np.int64)) == 49 * 80_000_000
    assert PeakMemory().stop() < before + 40_000_000
