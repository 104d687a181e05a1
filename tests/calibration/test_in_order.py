"""Order, errors and deaths of work that is shared among threads and processes."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qdqc.calibration.in_order import can_fork, in_processes, in_threads
from qdqc.diagnostics import QdqcError

forks = pytest.mark.skipif(not can_fork(), reason="this system has no fork")


def doubled(number: int) -> bytes:
    return str(2 * number).encode()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_threads_give_results_in_order(count: int, threads: int) -> None:
    def task(number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return 2 * number

    found = in_threads(task, range(count), threads, threading.Event())
    assert list(found) == [2 * n for n in range(count)]


def test_threads_read_no_further_ahead_than_they_work() -> None:
    given: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(100):
            given.append(number)
            yield number

    found = in_threads(abs, numbers(), 2, threading.Event())
    assert next(found) == 0
    assert given == [0, 1, 2], "two at work, one waits"
    found.close()


def test_threads_are_told_to_stop_when_their_results_are_left() -> None:
    stop = threading.Event()
    found = in_threads(lambda n: stop.wait(20 * n), range(3), 1, stop)
    next(found)
    start = time.monotonic()
    found.close()
    assert stop.is_set()
    assert time.monotonic() - start < 15


def failing(number: int) -> bytes:
    if number == 1:
        raise QdqcError("no such sample", file="1.png", notes=["remove it"])
    return doubled(number)


def broken(number: int) -> bytes:
    raise ValueError(f"a defect at {number}")


def test_errors_come_up_from_threads() -> None:
    found = in_threads(failing, range(3), 2, threading.Event())
    assert next(found) == b"0"
    with pytest.raises(QdqcError, match="no such sample"):
        next(found)


@forks
@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 9])
def test_processes_give_results_in_order(count: int, workers: int) -> None:
    def task(number: int) -> bytes:
        time.sleep(0.002 * (number % 3))
        return doubled(number)

    assert list(in_processes(task, range(count), workers)) == [doubled(n) for n in range(count)]


@forks
def test_errors_come_up_from_processes() -> None:
    with pytest.raises(QdqcError, match=r"1\.png: error: no such sample\nnote: remove it"):
        list(in_processes(failing, range(3), 2))
    with pytest.raises(RuntimeError, match="a defect at 0"):
        list(in_processes(broken, range(1), 2))


def kills(marks: Path, times: int) -> Callable[[int], bytes]:
    """Work whose process is killed at the first of number 3, so many times."""

    def task(number: int) -> bytes:
        if number == 3 and len(list(marks.iterdir())) < times:
            (marks / str(os.getpid())).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return doubled(number)

    return task


@forks
def test_the_work_of_a_killed_process_is_done_again(tmp_path: Path) -> None:
    found = list(in_processes(kills(tmp_path, 2), range(9), 2))
    assert found == [doubled(n) for n in range(9)]
    assert len(list(tmp_path.iterdir())) == 2


@forks
def test_work_that_kills_every_process_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(QdqcError, match=r"3 worker processes died .* exit code -9"):
        list(in_processes(kills(tmp_path, 9), range(9), 2))
    assert len(list(tmp_path.iterdir())) == 3


@forks
def test_processes_end_when_their_results_are_left(tmp_path: Path) -> None:
    def task(number: int) -> bytes:
        (tmp_path / str(os.getpid())).touch()
        time.sleep(0 if number == 0 else 60)
        return b""

    found = in_processes(task, range(4), 2)
    next(found)
    start = time.monotonic()
    found.close()
    assert time.monotonic() - start < 30
    for path in tmp_path.iterdir():
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.name), 0)
