"""A command that is told to end cleans up, and leaves with the exit code of the signal."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from qdqc.scratch import scratch_folder
from qdqc.tools.command import CommandParser, Invocation, execute


def run(action: object) -> int:
    parser = CommandParser("try_it", "Try it.", "try_it")
    return execute(parser, action, [])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (signal.SIGTERM, 143, "terminated"),
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGHUP, 129, "hung up"),
    ],
)
def test_it_cleans_up(
    number: int,
    code: int,
    word: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    before = signal.getsignal(number)

    def action(_: Invocation) -> None:
        with scratch_folder("audit"):
            os.kill(os.getpid(), number)
            raise AssertionError("not reached")

    assert run(action) == code
    assert capsys.readouterr().err == f"{word}\n"
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(number) is before


def test_a_second_one_does_not_stop_the_cleaning() -> None:
    done: list[str] = []

    def action(_: Invocation) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("cleaned")

    assert run(action) == 143
    assert done == ["cleaned"]


def test_what_is_ignored_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run(lambda _: os.kill(os.getpid(), signal.SIGHUP)) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_thread_of_a_program_changes_no_signals() -> None:
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(run(lambda _: 0)))
    thread.start()
    thread.join()
    assert codes == [0]
