"""Progress is for people at a terminal, and only when they wait."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from tools import progress
from tools.progress import Progress


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
    shown = Progress("check", 8, shown=True)
    clock[0] += 0.9
    shown.show(3)
    shown.end()
    assert terminal.getvalue() == ""


def test_a_line_is_told_at_most_ten_times_a_second(clock: list[float], terminal: Terminal) -> None:
    shown = Progress("check", 8, shown=True)
    for step in (1.1, 0.05, 0.1):
        clock[0] += step
        shown.show(int(clock[0] * 100))
    assert terminal.getvalue().count("\r") == 2
    shown.end()
    assert terminal.getvalue().endswith("\r\033[K")


def test_the_number_of_samples_may_be_unknown(clock: list[float], terminal: Terminal) -> None:
    shown = Progress("calibration", 0, shown=True)
    clock[0] += 2
    shown.show(5)
    assert terminal.getvalue() == "\rcalibration: sample 5"


@pytest.mark.parametrize("wanted", [True, False])
def test_only_a_terminal_that_wants_it_sees_it(
    clock: list[float], monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    stream = io.StringIO() if wanted else Terminal()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=stream))
    shown = Progress("check", 8, shown=wanted)
    clock[0] += 5
    shown.show(1)
    assert stream.getvalue() == ""


def test_tracking_gives_the_samples_and_takes_the_line_away(
    clock: list[float], terminal: Terminal
) -> None:
    given: list[str] = []
    for sample in Progress("check", 2, shown=True).track(["a", "b"]):
        given.append(sample)
        clock[0] += 2
    assert given == ["a", "b"]
    assert "check: sample 2 of 2" in terminal.getvalue()
    assert terminal.getvalue().endswith("\033[K")
