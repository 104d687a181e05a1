"""Who hears of a flow while it works."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from qdqc.diagnostics import Diagnostic, visible
from qdqc.pipeline.instrument import Instrument

__all__ = ["SILENT", "Listener", "Progress"]

ItemT = TypeVar("ItemT")


class Progress(Protocol):
    """Hears that so many units of a stage are done, of ``total``; 0 where nobody knows.

    ``note`` says what is known so far.
    """

    def __call__(
        self, stage: str, unit: str, done: int, total: int = 0, note: str = ""
    ) -> object: ...


def _no_progress(stage: str, unit: str, done: int, total: int = 0, note: str = "") -> None: ...


def _to_stderr(warning: Diagnostic | str) -> None:
    text = warning.render() if isinstance(warning, Diagnostic) else f"warning: {warning}"
    sys.stderr.write(visible(text) + "\n")


@dataclass(frozen=True)
class Listener:
    """Hears of progress, of warnings, and with ``note`` of what else people want to know.

    ``instruments`` look on at the passes that a flow runs; with ``verify_each`` the verifier runs
    after each of them. By default warnings go to stderr, and the rest nowhere.
    """

    progress: Progress = _no_progress
    warn: Callable[[Diagnostic | str], object] = _to_stderr
    note: Callable[[str], object] = lambda _: None
    detail: Callable[[str], object] = lambda _: None
    """As ``note``, for those who want to know more."""
    instruments: Sequence[Instrument] = ()
    verify_each: bool = True

    def stage(self, stage: str, unit: str = "sample") -> Callable[[int, int, str], object]:
        """Opens a stage; what it gives hears how many units are done, of how many, and a note."""

        def report(done: int, total: int = 0, note: str = "") -> object:
            return self.progress(stage, unit, done, total, note)

        report(0)  # the time of the first unit counts
        return report

    def track(self, stage: str, samples: Iterable[ItemT], total: int = 0) -> Iterator[ItemT]:
        """The samples, each reported when the next one is asked for."""
        self.progress(stage, "sample", 0, total)
        for number, sample in enumerate(samples, 1):
            yield sample
            self.progress(stage, "sample", number, total)


SILENT = Listener()
