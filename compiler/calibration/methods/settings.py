"""What all methods share: their settings, and the form of the range that they give.

Every range holds zero, because zero must have an integer: a tensor that is never negative has
``min`` 0. Symmetric quantization uses the threshold, asymmetric min and max.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from qdqc.calibration.statistics import Statistics
from qdqc.ir.types import Range

__all__ = [
    "BINS",
    "EMPTY_THRESHOLD",
    "LEVELS",
    "PLAIN",
    "TINY",
    "Counts",
    "Settings",
    "clipped",
    "ranged",
]

BINS = 2048
LEVELS = 128
"""Steps of a magnitude in 8 bits; also the smallest cut point that kl looks at."""

EMPTY_THRESHOLD = 1e-5
"""The range of a tensor that was zero throughout: some range, so that a scale exists."""

TINY = 2.0**-100
"""Magnitudes below this are zero: a scale of theirs would leave the normal float32 numbers."""

Counts: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Settings:
    """What the user may set of methods: bins of kl, and the share that percentile keeps, in %."""

    bins: int = BINS
    percentile: float = 99.99


PLAIN = Settings()


def ranged(stats: Statistics, low: float, high: float, threshold: float) -> Range:
    """The range with zero in it; a tensor that is zero throughout gets EMPTY_THRESHOLD.

    A threshold that cuts everything off gives the observed extremes.
    """
    if stats.absmax < TINY:
        return Range(0.0, EMPTY_THRESHOLD, EMPTY_THRESHOLD)
    if threshold < TINY:
        return ranged(stats, stats.min, stats.max, stats.absmax)
    return Range(min(low, 0.0), max(high, 0.0), threshold)


def clipped(stats: Statistics, threshold: float) -> Range:
    """The observed extremes, clipped to the threshold; that is no more than the largest of them."""
    threshold = min(threshold, stats.absmax)
    return ranged(stats, max(stats.min, -threshold), min(stats.max, threshold), threshold)
