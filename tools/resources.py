"""What a command takes: wall time of the whole process, and its peak of private memory."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from qdqc.runtime.machine import private_memory

__all__ = ["PeakMemory", "process_seconds"]

_IMPORTED = time.monotonic()
_INTERVAL = 0.05


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


def _recorded_peak() -> int:
    try:
        import resource
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
