"""What a command takes: wall time of the whole process, and its peak of private memory."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["PeakMemory", "peak_of", "private_memory", "process_seconds"]

_IMPORTED = time.monotonic()
_INTERVAL = 0.05
_FINE_INTERVAL = 0.005


def process_seconds() -> float:
    """Seconds since the process began; since the import of this module where that is unknown."""
    try:
        # Field 22 of /proc/[pid]/stat: start in clock ticks after boot (man 5 proc). The name
        # in field 2 may hold blanks, so fields are counted from its closing bracket.
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started
    except (OSError, AttributeError, ValueError, IndexError):
        return time.monotonic() - _IMPORTED


def private_memory() -> int:
    """Bytes of private memory of this process and its children; 0 where /proc is missing."""
    return sum(_private_bytes(pid) for pid in _family(os.getpid()))


def peak_of(action: Callable[[], object]) -> int:
    """The peak of private memory, in bytes, of a copy of this process that does something.

    0 where the system makes no such copies or tells no memory.
    """
    import multiprocessing

    if "fork" not in multiprocessing.get_all_start_methods():
        return 0
    child = multiprocessing.get_context("fork").Process(target=_quietly, args=(action,))
    child.start()
    peak = 0
    while child.is_alive():
        peak = max(peak, _private_bytes(child.pid or 0))
        child.join(_FINE_INTERVAL)
    return peak


def _quietly(action: Callable[[], object]) -> None:
    """What fails here fails again, and is told, when it is done in earnest."""
    with contextlib.suppress(Exception):
        action()
    time.sleep(2 * _FINE_INTERVAL)


class PeakMemory:
    """Samples the private memory of this process and its children in a thread.

    Private memory is RssAnon: mapped files do not count. Where /proc is missing, the largest
    resident set that the system recorded stands in for it.
    """

    def __init__(self) -> None:
        self._peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> int:
        """End sampling; the peak in bytes."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=1)
        self._sample()
        return self._peak or _recorded_peak()

    def _watch(self) -> None:
        while not self._stop.wait(_INTERVAL):
            self._sample()

    def _sample(self) -> None:
        self._peak = max(self._peak, private_memory())


def _family(pid: int) -> list[int]:
    """The process and all processes below it."""
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += [int(child) for child in children.read_text().split()]
            except OSError:
                continue  # the thread or process ended in between
    return found


def _private_bytes(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def _recorded_peak() -> int:
    try:
        import resource
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
