"""Faults at the N-th call of file I/O of this process: a failing call, no memory, a signal.

Calls are seen by Python's audit hooks and, as these know nothing of it, by writing through files of
our own class. Calls on files outside the given folders do not count: Python's own, for instance.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["KINDS", "count_calls"]

KINDS = ("error", "memory", "kill", "terminate")
"""The call fails with ENOSPC, with MemoryError; the process gets SIGKILL, SIGTERM."""

_EVENTS = frozenset(
    {
        "fcntl.flock",
        "open",
        "os.chmod",
        "os.listdir",
        "os.mkdir",
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.scandir",
        "os.truncate",
        "os.utime",
        "shutil.rmtree",
    }
)


class _Point:
    """Counts calls; at the given one it makes the fault. 0 makes none."""

    def __init__(self, folders: Sequence[Path], kind: str, number: int) -> None:
        self.folders = tuple(os.path.realpath(f) for f in folders)
        self.kind = kind
        self.number = number
        self.count = 0
        self.is_on = True

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.is_on and event in _EVENTS:
            paths = arguments[:2] if event == "os.rename" else arguments[:1]
            if any(map(self._is_inside, paths)):
                self.call(event)

    def call(self, event: str) -> None:
        self.count += 1
        if self.count != self.number:
            return
        if self.kind == "error":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.kind == "memory":
            raise MemoryError(f"in {event}")
        os.kill(os.getpid(), signal.SIGKILL if self.kind == "kill" else signal.SIGTERM)

    def _is_inside(self, argument: object) -> bool:
        if isinstance(argument, int) and not isinstance(argument, bool):
            try:
                argument = os.readlink(f"/proc/self/fd/{argument}")
            except OSError:
                return False
        if not isinstance(argument, str | bytes | os.PathLike):
            return False
        path = os.path.abspath(os.fsdecode(argument))
        return path.startswith(self.folders)


def count_calls(folders: Sequence[Path], kind: str = "error", number: int = 0) -> _Point:
    """From now on calls on files in these folders count; ``count`` of what is given says how many.

    The fault comes at the call of that number. It stays so until the process ends.
    """
    point = _Point(folders, kind, number)

    class Raw(io.FileIO):
        def write(self, content: Any) -> int | None:
            if point._is_inside(self.fileno()):
                point.call("write")
            return super().write(content)

    def opened(
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        if not set(mode) & set("wxa+") or buffering == 0:
            return plain(file, mode, buffering, encoding, errors, newline, closefd, opener)
        raw = Raw(file, mode.replace("b", "").replace("t", ""), closefd, opener)
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)

    def synced(file: int) -> None:
        point.call("fsync")
        fsync(file)

    plain, fsync = io.open, os.fsync
    builtins.open = io.open = opened  # type: ignore[assignment]
    os.fsync = synced  # type: ignore[assignment]
    sys.addaudithook(point.hear)
    return point
