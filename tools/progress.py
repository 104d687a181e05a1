"""Progress for people who wait: how far the work is, how fast, how long still, in what memory."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from qdqc.diagnostics import visible
from qdqc.runtime.machine import private_memory

if TYPE_CHECKING:
    from rich.live import Live

__all__ = ["Progress", "StagedProgress"]

_AFTER = 1.0
"""Seconds of work after which progress is shown on a terminal."""
_EVERY = 0.1
"""Seconds between two looks of it there."""
_PLAIN_AFTER = 5.0
"""Seconds before the first line elsewhere, and at least between two."""
_PLAIN_SHARE = 2
"""Lines are written when that many times as much time has passed as at the last one."""


class Progress:
    """Shows ``calibration: sample 3 of 8, 2.0 a second, 3 s left, 120 MB`` on stderr.

    On a terminal this is one line, kept up to date after a second of work and taken away in the
    end. Elsewhere, as in a log, lines follow each other at doubling distances.
    """

    def __init__(self, what: str, *, shown: bool, unit: str = "sample") -> None:
        self._what = what
        self._unit = unit
        self._shown = shown
        self._live: Live | None = None
        self._start = time.monotonic()
        self._first: tuple[int, float] | None = None
        self._next = self._start + (_AFTER if sys.stderr.isatty() else _PLAIN_AFTER)

    def close(self) -> None:
        """Take the line away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def show(self, done: int, total: int = 0, note: str = "") -> None:
        """Report that so many samples are done, of ``total``; 0 where nobody knows.

        ``note`` says what was found so far.
        """
        now = time.monotonic()
        if self._first is None:
            self._first = (done, now)
        if not self._shown or now < self._next:
            return
        text = visible(f"{self._what}: {self._text(done, total, now)}{note and f'; {note}'}")
        if sys.stderr.isatty():
            self._next = now + _EVERY
            self._show_live(text)
        else:
            self._next = self._start + _PLAIN_SHARE * (now - self._start)
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def _text(self, done: int, total: int, now: float) -> str:
        """Rate and time left go by what was done since the first sample that was reported."""
        parts = [f"{self._unit} {done} of {total}" if total else f"{self._unit} {done}"]
        first, since = self._first or (0, now)
        if done > first and now > since:
            rate = (done - first) / (now - since)
            parts.append(f"{rate:.3g} a second")
            if total:
                parts.append(f"{_time((total - done) / rate)} left")
        if memory := private_memory():
            parts.append(f"{memory / 1e6:.0f} MB")
        return ", ".join(parts)

    def _show_live(self, text: str) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        if self._live is None:
            console = Console(file=sys.stderr)
            self._live = Live(
                console=console, auto_refresh=False, transient=True, redirect_stdout=False
            )
            self._live.start()
        self._live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)


class StagedProgress:
    """Shows the progress of one stage after another; ``shown`` says whether people want it."""

    def __init__(self) -> None:
        self.shown = True
        self._stage = ""
        self._progress: Progress | None = None

    def __call__(self, stage: str, unit: str, done: int, total: int = 0, note: str = "") -> None:
        """Hear that so many units of a stage are done."""
        if self._progress is None or stage != self._stage:
            self.close()
            self._stage, self._progress = stage, Progress(stage, shown=self.shown, unit=unit)
        self._progress.show(done, total, note)

    def close(self) -> None:
        """Take the line away, before anything else is written."""
        if self._progress is not None:
            self._progress.close()


def _time(seconds: float) -> str:
    """As ``12 s``, ``3 min`` or ``2.5 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
