"""The method with the least squared error in 8 bits, by the whole histogram."""

from __future__ import annotations

import numpy as np

from qdqc.calibration.methods.extremes import Max
from qdqc.calibration.methods.method import TINY, Counts, Method, ranged
from qdqc.calibration.statistics import SIDE, Statistics
from qdqc.ir.types import Range

__all__ = ["Mse"]

_ENDS = np.arange(1, 257) / 256
"""Ends that compete, as shares of the observed one."""

_STEPS = 255


class Mse(Method):
    """The ends with the least squared error; asymmetric and symmetric are sought apart.

    Every element but an exact zero costs ``step^2 / 12`` for its rounding, and its squared
    distance from the end beyond which it lies. For min and max all pairs of 256 low ends and 256
    high ends compete, with ``step = (max - min) / 255``; for the threshold t 256 values, with
    ``step = t / 127``, or ``t / 255`` where nothing is negative. (The model of error is that of
    Banner et al., 2019, with the distribution counted instead of assumed.)
    """

    name = "mse"

    def range(self, stats: Statistics) -> Range:
        if stats.absmax < TINY:
            return Max().range(stats)
        above = stats.counts[SIDE:].astype(np.float64)
        below = stats.counts[SIDE - 1 :: -1].astype(np.float64)
        above[0] -= stats.zeros
        elements = float(above.sum() + below.sum())
        high, low = _Tail(above, stats.width, stats.max), _Tail(below, stats.width, -stats.min)
        highs, lows = max(stats.max, 0.0) * _ENDS, max(-stats.min, 0.0) * _ENDS
        rounding = elements * ((highs + lows[:, None]) / _STEPS) ** 2 / 12
        error = rounding + high.beyond(highs) + low.beyond(lows)[:, None]
        best_low, best_high = np.unravel_index(int(np.argmin(error)), error.shape)
        cuts = stats.absmax * _ENDS
        step = cuts / (_STEPS if stats.min >= 0 else _STEPS // 2)
        error = elements * step**2 / 12 + high.beyond(cuts) + low.beyond(cuts)
        threshold = float(cuts[int(np.argmin(error))])
        return ranged(stats, -float(lows[best_low]), float(highs[best_high]), threshold)


class _Tail:
    """One side of zero: ``counts`` in bins of a width, with magnitudes up to ``largest``.

    Elements lie in the middle of their bins, but no farther out than the largest.
    """

    def __init__(self, counts: Counts, width: float, largest: float) -> None:
        middle = (np.arange(counts.size) + 0.5) * width
        self._magnitude = np.minimum(middle, max(largest, 0.0))
        moments = (counts, counts * self._magnitude, counts * self._magnitude**2)
        self._sums = [np.append(np.cumsum(m[::-1])[::-1], 0.0) for m in moments]

    def beyond(self, cuts: Counts) -> Counts:
        """The sum of squared distances of what lies beyond each of the cuts."""
        first = np.searchsorted(self._magnitude, cuts, side="right")
        count, total, squares = (s[first] for s in self._sums)
        return np.maximum(squares - 2 * cuts * total + cuts**2 * count, 0.0)
