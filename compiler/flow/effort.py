"""What a flow may use of the machine, and where it keeps what it found out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from qdqc.diagnostics import QdqcError
from qdqc.flow.listener import Listener
from qdqc.kept_folder import KeptFolder, goes_on_without
from qdqc.runtime.machine import cores, peak_of
from qdqc.versions import version_of

if TYPE_CHECKING:
    from qdqc.calibration.collection import Resources
    from qdqc.search.trials.spread import Hands

__all__ = ["ALONE", "Effort"]

_THREADS = 4
"""Threads at most: each holds the values of a sample."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """Processes, private memory in bytes (0 is no limit), and a folder that keeps findings.

    The folder is one of our own in ``cache``, by default in the user's; without ``keeps``
    nothing is kept, and nothing of earlier runs is used.
    """

    workers: int = 1
    threads: int = field(default_factory=lambda: min(cores(), _THREADS))
    memory_limit: int = 0
    cache: Path | None = None
    keeps: bool = False

    def resources(self, header: Mapping[str, str], listener: Listener) -> Resources:
        """What collecting statistics may use: each thread or process runs a model of its own.

        Statistics in the cache depend on the model and the tools that ``header`` names.
        """
        from qdqc.calibration.cache import SUFFIX, Cache
        from qdqc.calibration.collection import Resources

        runtime = version_of("onnxruntime")
        base = self.cache
        folder = _folder(base, "calibration", SUFFIX, listener) if self.keeps else None
        return Resources(
            memory_limit=self.memory_limit,
            measure=peak_of,
            threads=self.threads,
            workers=self.workers,
            cache=Cache(folder, listener.warn) if folder is not None else None,
            key=f"{header['digest']} {header['tool']} onnxruntime {runtime}",
            tell=listener.note,
        )

    def hands(self) -> Hands:
        """Who runs trials."""
        from qdqc.search.trials.spread import Hands

        return Hands(self.threads, self.workers)

    def journal_folder(self, listener: Listener) -> KeptFolder | None:
        """Where searches keep what they found; None where nothing is kept."""
        from qdqc.search.trials.journal import SUFFIX

        return _folder(self.cache, "search", SUFFIX, listener) if self.keeps else None


def _folder(base: Path | None, what: str, suffix: str, listener: Listener) -> KeptFolder | None:
    """A folder that keeps findings; where it can't be used this is reported, and None."""
    try:
        return KeptFolder(base, what, suffix)
    except (OSError, QdqcError) as error:
        listener.warn(goes_on_without(what, base, error))
        return None


ALONE = Effort(threads=1)
"""One thread, and nothing kept."""
