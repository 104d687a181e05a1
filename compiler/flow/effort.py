"""What a flow may use of the machine, and where it keeps what it found out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from qdqc.files import cache_folder
from qdqc.flow.listener import Listener
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

    ``cache`` is the folder, None for the user's own; without ``keeps`` nothing is kept, and
    nothing of earlier runs is used.
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
        from qdqc.calibration.cache import Cache
        from qdqc.calibration.collection import Resources

        runtime = version_of("onnxruntime")
        folder = self.cache or cache_folder("calibration")
        return Resources(
            memory_limit=self.memory_limit,
            measure=peak_of,
            threads=self.threads,
            workers=self.workers,
            cache=Cache(folder, listener.warn) if self.keeps else None,
            key=f"{header['digest']} {header['tool']} onnxruntime {runtime}",
            tell=listener.note,
        )

    def hands(self) -> Hands:
        """Who runs trials."""
        from qdqc.search.trials.spread import Hands

        return Hands(self.threads, self.workers)

    def journal_folder(self) -> Path | None:
        """Where searches keep what they found; None where nothing is kept."""
        return (self.cache or cache_folder("search")) if self.keeps else None


ALONE = Effort(threads=1)
"""One thread, and nothing kept."""
