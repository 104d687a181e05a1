"""Timing of models side by side: interleaved rounds, medians with their spread."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from compiler.runtime.session import Feeds, open_session

__all__ = ["Timing", "time_interleaved"]

_WARM_UP = 3


@dataclass(frozen=True)
class Timing:
    """Seconds a run: the median and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, seconds: npt.ArrayLike) -> Timing:
        quartiles = np.quantile(np.asarray(seconds, np.float64), [0.25, 0.5, 0.75])
        low, median, high = (float(q) for q in quartiles)
        return cls(median, low, high)


def time_interleaved(
    models: Mapping[str, Any], feeds: Feeds, *, rounds: int = 30, threads: int = 1
) -> dict[str, Timing]:
    """Seconds that each model takes for the same inputs.

    ``models`` are files or ModelProtos by name. Every round runs each model once, in turn, so
    that a change in the machine's speed meets all of them alike.
    """
    sessions = {n: open_session(m, threads=threads) for n, m in models.items()}
    inputs = {n: np.asarray(a) for n, a in feeds.items()}
    seconds: dict[str, list[float]] = {n: [] for n in sessions}
    for turn in range(rounds + _WARM_UP):
        for name, session in sessions.items():
            start = time.perf_counter()
            session.run(None, inputs)
            if turn >= _WARM_UP:
                seconds[name].append(time.perf_counter() - start)
    return {n: Timing.of(s) for n, s in seconds.items()}
