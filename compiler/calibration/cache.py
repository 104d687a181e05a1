"""Statistics on disk, so that another method or an interrupted run goes on from there."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from qdqc.calibration.state import DamagedError, from_bytes, to_bytes
from qdqc.calibration.statistics import Collector
from qdqc.diagnostics import Diagnostic, QdqcError, Severity
from qdqc.files import write_whole

__all__ = ["Cache", "Entry"]

LIMIT = 1 << 30
"""Bytes that a cache may take; what was used longest ago goes first."""
_KEEP = 30 * 24 * 3600
"""Seconds for which an entry is kept without being used."""
_LEFT_OVER = 3600
"""Seconds after which a file that was never put in its place belongs to no run."""
_SHARE = 4
"""A state is written when this many times as long has passed as the last writing took."""
_SUFFIX = ".statistics"


class Cache:
    """A folder of statistics. Any number of runs may share it: entries are replaced whole.

    A folder that can't be used is reported once, by ``warn``, and calibration goes on without it.
    """

    def __init__(self, folder: Path, warn: Callable[[Diagnostic], object]) -> None:
        self.folder = folder
        self._warn = warn
        self.usable = True
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._prune()
        except OSError as error:
            self.give_up(error.strerror or str(error))

    def entry(self, key: str) -> Entry:
        """What is kept under a key, which says all that the statistics depend on."""
        return Entry(self, key)

    def read(self, path: Path) -> bytes | None:
        """The contents of a file of the folder; None where it is not there."""
        try:
            content = path.read_bytes() if self.usable else None
        except OSError:
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return content

    def write(self, path: Path, content: bytes) -> None:
        """Put a file in its place, whole."""
        if self.usable:
            try:
                write_whole(path, content)
            except QdqcError as error:
                self.give_up(error.diagnostic.message)

    def give_up(self, reason: str) -> None:
        """Do without the folder from now on, and say so."""
        self.usable = False
        message = f"calibration goes on without its cache: {reason}"
        notes = ("`cache` names another folder, `no_cache` does without one",)
        self._warn(Diagnostic(Severity.WARNING, message, file=str(self.folder), notes=notes))

    def _prune(self) -> None:
        """Remove what is old, what was left over by killed runs, and what is too much."""
        now, taken = time.time(), 0
        for used, size, path in sorted(self._files(), reverse=True):
            left_over = path.suffix == ".tmp" and now - used > _LEFT_OVER
            taken += size
            if left_over or now - used > _KEEP or taken > LIMIT:
                with contextlib.suppress(OSError):
                    path.unlink()

    def _files(self) -> list[tuple[float, int, Path]]:
        """When each of our files was used last, its size and its path."""
        files: list[tuple[float, int, Path]] = []
        for path in self.folder.iterdir():
            if _SUFFIX in path.name:
                with contextlib.suppress(OSError):  # another run has just removed it
                    status = path.stat()
                    files.append((status.st_mtime, status.st_size, path))
        return files


class Entry:
    """The statistics under one key: read once, and written again and again as they grow."""

    def __init__(self, cache: Cache, key: str) -> None:
        name = hashlib.sha256(key.encode()).hexdigest()
        self.path = cache.folder / f"{name[:40]}{_SUFFIX}"
        self._cache = cache
        self._key = key
        self._written = self._took = 0.0

    def load(self) -> tuple[Collector, list[str]] | None:
        """The statistics, and the digests of the batches that they are of.

        None where there are none, or where the file is damaged or belongs to another key.
        """
        content = self._cache.read(self.path)
        if content is None:
            return None
        try:
            collector, notes = from_bytes(content)
        except DamagedError:
            return None
        if notes.get("key") != self._key:
            return None
        return collector, notes.get("batches", "").split()

    def save(self, collector: Collector, batches: list[str], *, at_once: bool = False) -> None:
        """Keep the statistics, unless they were written so lately that it would cost time."""
        start = time.monotonic()
        if not at_once and start - self._written < _SHARE * self._took:
            return
        notes = {"key": self._key, "batches": " ".join(batches)}
        self._cache.write(self.path, to_bytes(collector, notes))
        self._written = time.monotonic()
        self._took = self._written - start
