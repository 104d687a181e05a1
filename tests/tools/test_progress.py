"""Progress is for people at a terminal, and only when they wait."""

from __future__ import annotations

import io
from contextlib import closing
from types import SimpleNamespace

import pytest

from qdqc.flow.listener import Listener
from qdqc.tools import progress
from qdqc.tools.progress import Progress, StagedProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be set; it begins at 100."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    stream = Terminal()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=stream))
    return stream


def test_nothing_is_told_in_the_first_second(clock: list[float], terminal: Terminal) -> None:
    with closing(Progress("check", shown=True)) as shown:
        clock[0] += 0.9
        shown.show(3, 8)
    assert terminal.getvalue() == ""


def test_a_terminal_sees_one_line_that_goes_in_the_end(
    clock: list[float], terminal: Terminal
) -> None:
    with closing(Progress("check", shown=True)) as shown:
        shown.show(0, 8)
        for done in (1, 2, 4):
            clock[0] += 2
            shown.show(done, 8)
        clock[0] += 0.05
        shown.show(5, 8)
        assert "check: sample 4 of 8, 0.667 a second, 6 s left" in terminal.getvalue()
        assert "sample 5" not in terminal.getvalue(), "ten times a second is enough"
        assert "\n" not in terminal.getvalue()
    assert terminal.getvalue().rstrip("\n").endswith("\x1b[2K")


def log(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    stream = io.StringIO()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=stream))
    return stream


def test_a_log_gets_lines_at_doubling_distances(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = log(monkeypatch)
    monkeypatch.setattr(progress, "private_memory", lambda: 120_000_000)
    with closing(Progress("calibration", shown=True)) as shown:
        for done in range(1, 41):
            shown.show(done, 9000)
            clock[0] += 1
    assert stream.getvalue().splitlines() == [
        "calibration: sample 6 of 9000, 1 a second, 2.5 h left, 120 MB",
        "calibration: sample 11 of 9000, 1 a second, 2.5 h left, 120 MB",
        "calibration: sample 21 of 9000, 1 a second, 2.5 h left, 120 MB",
    ]


def test_the_number_of_samples_and_the_memory_may_be_unknown(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = log(monkeypatch)
    monkeypatch.setattr(progress, "private_memory", lambda: 0)
    with closing(Progress("calibration", shown=True)) as shown:
        shown.show(50)
        clock[0] += 10
        shown.show(55)
    assert stream.getvalue() == "calibration: sample 55, 0.5 a second\n"


def test_nobody_is_told_who_wants_it_quiet(clock: list[float], terminal: Terminal) -> None:
    with closing(Progress("check", shown=False)) as shown:
        clock[0] += 50
        shown.show(1)
    assert terminal.getvalue() == ""


def test_tracking_gives_the_samples(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    stream = log(monkeypatch)
    given: list[str] = []
    for sample in Listener(progress=StagedProgress()).track("check", ["a", "b"], 2):
        given.append(sample)
        clock[0] += 6
    assert given == ["a", "b"]
    assert stream.getvalue().startswith("check: sample 1 of 2")
