"""Statistics on disk, so that another method or an interrupted run goes on from there."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from qdqc.calibration.state import DamagedError, from_bytes, to_bytes
from qdqc.calibration.statistics import Collector
from qdqc.diagnostics import Diagnostic, QdqcError
from qdqc.files import write_whole
from qdqc.kept_folder import KeptFolder, goes_on_without

__all__ = ["SUFFIX", "Cache", "Entry"]

LIMIT = 1 << 30
"""Bytes that a cache may take; what was used longest ago goes first."""
_SHARE = 4
"""A state is written when this many times as long has passed as the last writing took."""
SUFFIX = ".statistics"


class Cache:
    """Statistics in a folder. Any number of runs may share it: entries are replaced whole.

    Where it can't be used any more this is reported once, by ``warn``, and calibration goes on
    without it.
    """

    def __init__(self, folder: KeptFolder, warn: Callable[[Diagnostic], object]) -> None:
        self.folder = folder
        self._warn = warn
        self.usable = True
        with contextlib.suppress(OSError):  # what can't be pruned stays
            folder.prune(LIMIT)

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
                self.usable = False
                self._warn(goes_on_without("calibration", self.folder.path, error))


class Entry:
    """The statistics under one key: read once, and written again and again as they grow."""

    def __init__(self, cache: Cache, key: str) -> None:
        self.path = cache.folder.file(key)
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
