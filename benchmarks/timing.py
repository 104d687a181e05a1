"""Latency of several things in one process, interleaved so that a busy machine hits all alike."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Seconds", "Spread", "interleave", "ratio", "spread"]

Seconds: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Spread:
    """Median and quartiles."""

    median: float
    low: float
    high: float

    def text(self, *, scale: float = 1.0, digits: int = 2) -> str:
        """As ``median [low, high]``."""
        median, low, high = (f"{v * scale:.{digits}f}" for v in (self.median, self.low, self.high))
        return f"{median} [{low}, {high}]"


def interleave(
    runs: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    repeats: int = 1,
    warmup: int = 3,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Seconds]:
    """Seconds of one call of each run, [rounds] each.

    In every round each run is called ``repeats`` times in a row, and the order of the runs is
    drawn anew, so that none always follows the same one. ``warmup`` rounds are left out.
    """
    order = list(runs)
    draw = random.Random(seed)
    out: dict[str, list[float]] = {name: [] for name in order}
    for number in range(warmup + rounds):
        draw.shuffle(order)
        for name in order:
            call = runs[name]
            start = clock()
            for _ in range(repeats):
                call()
            passed = (clock() - start) / repeats
            if number >= warmup:
                out[name].append(passed)
    return {name: np.array(values) for name, values in out.items()}


def spread(values: npt.ArrayLike) -> Spread:
    """Median and quartiles of values."""
    low, median, high = np.percentile(np.asarray(values, np.float64), [25, 50, 75])
    return Spread(float(median), float(low), float(high))


def ratio(above: Seconds, below: Seconds) -> Spread:
    """Ratio of the medians, with the quartiles of the ratio within a round."""
    within = spread(above / below)
    return Spread(float(np.median(above) / np.median(below)), within.low, within.high)
