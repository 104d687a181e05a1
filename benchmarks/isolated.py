"""One case, one process: forked from a warm one, under limits of time and memory, and looked at."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Ended", "in_processes"]

_MEMORY = 8 << 30
"""Bytes of address space that a case may map; onnxruntime alone maps one or two GiB."""
_FILE = 1 << 30


@dataclass(frozen=True)
class Ended:
    """How a case ended: its result, or ``fault`` in words where it gave none."""

    case: int
    result: Any
    fault: str | None
    seconds: float


@dataclass
class _Running:
    case: int
    pid: int
    pipe: int
    folder: Path
    deadline: float
    started: float


def in_processes(
    work: Callable[[int, Path], Any], cases: Iterable[int], jobs: int = 2, limit: float = 60.0
) -> Iterator[Ended]:
    """Call ``work(case, folder)`` for each case in a process of its own, ``jobs`` at once.

    The folder is empty, the current one, and where temporary files go; it is removed afterwards.
    ``limit`` is in seconds of wall time. The result has to be JSON. Cases end in any order.
    """
    waiting = iter(cases)
    running: list[_Running] = []
    root = Path(tempfile.mkdtemp(prefix="isolated-"))
    try:
        while True:
            while len(running) < jobs and (case := next(waiting, None)) is not None:
                running.append(_start(work, case, root / str(case), limit))
            if not running:
                return
            yield from _ended(running)
    finally:
        for one in running:
            _kill(one)
        shutil.rmtree(root, ignore_errors=True)


def _start(work: Callable[[int, Path], Any], case: int, folder: Path, limit: float) -> _Running:
    folder.mkdir()
    reading, writing = os.pipe()
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _child(work, case, folder, writing)
    os.close(writing)
    return _Running(case, pid, reading, folder, started + limit, started)


def _child(work: Callable[[int, Path], Any], case: int, folder: Path, pipe: int) -> None:
    """Run the case and leave, whatever it does; what it printed stays in the folder."""
    code = 1
    try:
        os.setsid()
        for kind, most in (
            (resource.RLIMIT_AS, _MEMORY),
            (resource.RLIMIT_FSIZE, _FILE),
            (resource.RLIMIT_CORE, 0),
        ):
            resource.setrlimit(kind, (most, most))
        os.chdir(folder)
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
        printed = os.open(folder / "printed", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(printed, 1)
        os.dup2(printed, 2)
        try:
            answer = {"result": work(case, folder)}
        except BaseException:
            answer = {"fault": traceback.format_exc()}
        with os.fdopen(pipe, "w", encoding="utf-8") as out:
            json.dump(answer, out)
        code = 0
    finally:
        os._exit(code)


def _ended(running: list[_Running]) -> Iterator[Ended]:
    """Wait for the next process to end, or for the next deadline."""
    now = time.monotonic()
    nearest = max(0.0, min(one.deadline for one in running) - now)
    ready, _, _ = select.select([one.pipe for one in running], [], [], nearest)
    for one in list(running):
        late = time.monotonic() > one.deadline
        if one.pipe not in ready and not late:
            continue
        text = "" if one.pipe not in ready else _whole(one)
        running.remove(one)
        yield _judged(one, text, late=one.pipe not in ready or time.monotonic() > one.deadline)


def _whole(one: _Running) -> str:
    """What the process wrote to its pipe until it closed it or its time was over."""
    parts: list[bytes] = []
    while (left := one.deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([one.pipe], [], [], left)
        part = os.read(one.pipe, 1 << 16) if ready else b""
        if not part:
            break
        parts.append(part)
    return b"".join(parts).decode("utf-8", "replace")


def _judged(one: _Running, text: str, *, late: bool) -> Ended:
    status = _kill(one)
    seconds = time.monotonic() - one.started
    fault: str | None = None
    answer: Any = {}
    if text:
        answer = json.loads(text)
        fault = answer.get("fault")
    elif late:
        fault = f"hang: it took more than {one.deadline - one.started:.0f} s"
    elif os.WIFSIGNALED(status):
        fault = f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    else:
        fault = f"ended with {os.waitstatus_to_exitcode(status)} and no result"
    if fault is not None:
        fault += _tail(one.folder / "printed")
    shutil.rmtree(one.folder, ignore_errors=True)
    return Ended(one.case, answer.get("result"), fault, seconds)


def _tail(printed: Path) -> str:
    try:
        return "\n" + printed.read_bytes()[-1500:].decode("utf-8", "replace")
    except OSError:
        return ""


def _kill(one: _Running) -> int:
    """End the process and all that it started; its wait status."""
    os.close(one.pipe)
    done, status = os.waitpid(one.pid, os.WNOHANG)
    grace = time.monotonic() + 0.5
    while not done and time.monotonic() < grace and time.monotonic() < one.deadline:
        time.sleep(0.005)
        done, status = os.waitpid(one.pid, os.WNOHANG)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(one.pid, signal.SIGKILL)
    if not done:
        _, status = os.waitpid(one.pid, 0)
    return status
