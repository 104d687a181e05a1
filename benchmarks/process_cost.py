"""What a whole child process takes: wall time and peak of private memory, seen from outside."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

__all__ = ["ChildError", "ProcessCost", "measure", "private_bytes"]

_INTERVAL = 0.02
_TAIL = 2000
"""Characters of a failed process's stderr that are shown."""


@dataclass(frozen=True)
class ProcessCost:
    """Wall time, and the peak of RssAnon summed over the process and its children."""

    seconds: float
    peak_bytes: int
    stdout: str = ""


class ChildError(RuntimeError):
    """A measured process ended with another exit code than 0."""


def measure(argv: Sequence[str], cwd: Path | None = None) -> ProcessCost:
    """Run a process to its end and sample the private memory of it and its children.

    Private memory is RssAnon of /proc: mapped files do not count. It is 0 where there is no
    /proc. Raises ChildError with the end of the process's stderr.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as told:
        start = time.perf_counter()
        child = subprocess.Popen(argv, cwd=cwd, stdout=out, stderr=told)
        peak = 0
        while child.poll() is None:
            peak = max(peak, private_bytes(child.pid))
            time.sleep(_INTERVAL)
        seconds = time.perf_counter() - start
        if child.returncode:
            tail = _whole(told)[-_TAIL:]
            raise ChildError(f"{argv[0]} ended with exit code {child.returncode}\n{tail}")
        return ProcessCost(seconds, peak, _whole(out))


def private_bytes(pid: int) -> int:
    """RssAnon of a process and of all processes below it, in bytes."""
    family = [pid]
    for parent in family:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            family += [int(child) for child in _read(children).split()]
    return sum(_anonymous(_read(Path(f"/proc/{member}/status"))) for member in family)


def _whole(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode(errors="replace")


def _anonymous(status: str) -> int:
    rows = [line.split() for line in status.splitlines() if line.startswith("RssAnon:")]
    return int(rows[0][1]) * 1024 if rows else 0


def _read(path: Path) -> str:
    """The text of a file of /proc; empty when its process has ended."""
    try:
        return path.read_text()
    except OSError:
        return ""
