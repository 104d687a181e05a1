"""A line on a terminal that tells how far the work is."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

__all__ = ["Progress"]

ItemT = TypeVar("ItemT")

_AFTER = 1.0
"""Seconds of work after which progress is shown."""
_EVERY = 0.1
"""Seconds between two looks of it."""


class Progress:
    """Shows ``{what}: sample 3 of 8`` on stderr, where that is a terminal, after a second of work.

    ``total`` is 0 where nobody knows it.
    """

    def __init__(self, what: str, total: int, *, shown: bool) -> None:
        self._what = what
        self._of = f" of {total}" if total else ""
        self._shown = shown and sys.stderr.isatty()
        self._start = self._told = time.monotonic()

    def show(self, done: int) -> None:
        """Tell that so many samples are done."""
        now = time.monotonic()
        if not self._shown or now - self._start < _AFTER or now - self._told < _EVERY:
            return
        self._told = now
        sys.stderr.write(f"\r{self._what}: sample {done}{self._of}")
        sys.stderr.flush()

    def end(self) -> None:
        """Take the line away."""
        if self._told != self._start:
            sys.stderr.write("\r\033[K")

    def track(self, samples: Iterable[ItemT]) -> Iterator[ItemT]:
        """The samples, each told when the next one is asked for."""
        for number, sample in enumerate(samples, 1):
            yield sample
            self.show(number)
        self.end()
