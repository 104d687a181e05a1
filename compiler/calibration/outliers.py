"""Values whose range is made by few numbers: these lose most accuracy in integers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from qdqc.calibration.statistics import SIDE, Statistics

__all__ = ["Outlier", "outlier_driven"]

_BULK = 0.9999
_LEAST = 2.0
"""A range less than so many times that of the bulk is not worth a line."""


@dataclass(frozen=True)
class Outlier:
    """``ratio`` is the largest magnitude over that of 99.99 percent of the elements; ``kurtosis``
    is ``E[(x - mean)^4] / E[(x - mean)^2]^2``, 3 for a normal distribution.
    """

    name: str
    ratio: float
    kurtosis: float


def outlier_driven(
    statistics: Mapping[str, Statistics], bounded: Iterable[str] = (), most: int = 5
) -> list[Outlier]:
    """The values with the largest ratios above 2, the worst first; at most ``most`` of them.

    ``bounded`` are values whose range the op itself fixes, such as a softmax. Values that share
    their statistics count once. Only statistics with a histogram count.
    """
    left_out, seen = set(bounded), set[int]()
    outliers: list[Outlier] = []
    for name, stats in statistics.items():
        if name in left_out or id(stats) in seen or not stats.counts.any():
            continue
        seen.add(id(stats))
        outlier = _outlier(name, stats)
        if outlier.ratio > _LEAST:
            outliers.append(outlier)
    return sorted(outliers, key=lambda o: -o.ratio)[:most]


def _outlier(name: str, stats: Statistics) -> Outlier:
    tail = (1 - _BULK) / 2
    bulk = max(abs(stats.quantile(tail)), abs(stats.quantile(1 - tail)))
    ratio = stats.absmax / bulk if bulk > 0 else float("inf") if stats.absmax > 0 else 1.0
    return Outlier(name, ratio, _kurtosis(stats))


def _kurtosis(stats: Statistics) -> float:
    """From the histogram, each bin by its middle; exact zeros are no part of the first bin."""
    middles = (np.arange(-SIDE, SIDE) + 0.5) * stats.width
    counts = stats.counts.astype(np.float64)
    counts[SIDE] -= stats.zeros
    numbers, weights = np.append(middles, 0.0), np.append(counts, stats.zeros)
    total = weights.sum()
    centred = numbers - (weights @ numbers) / total
    variance = (weights @ centred**2) / total
    fourth = (weights @ centred**4) / total
    return float(fourth / variance**2) if variance > 0 else 0.0
