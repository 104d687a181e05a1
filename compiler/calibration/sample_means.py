"""Quantities of single samples, of which methods take the mean: sums in exact arithmetic.

``ExactMeans`` is a running mean whose state depends on the numbers alone, never on their order
or on how they were split. ``octav_threshold`` and ``mean_deviation`` look at the histogram of one
sample, whose elements count as lying in the middle of their bins; exact zeros count as zeros.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["ExactMeans", "mean_deviation", "octav_threshold"]

_PARTS = 8
"""Float64 parts of a sum: 424 bits, more than lie between the ends of float32."""

_ITERATIONS = 20
_ROUNDING = 4.0**-8 / 3
"""Mean squared error of rounding in 8 bits with sign, in squared thresholds."""

Counts = npt.NDArray[np.integer[Any]]


@dataclass
class ExactMeans:
    """Means of several quantities. ``sums`` is float64 [quantities, 8].

    A row holds its sum in parts that do not overlap: the first is the sum rounded to float64,
    the next what that lost, and so on. So equal sets of numbers give equal arrays.
    """

    sums: npt.NDArray[np.float64]
    count: int = 0

    @staticmethod
    def of(quantities: int) -> ExactMeans:
        """Nothing seen yet."""
        return ExactMeans(np.zeros((quantities, _PARTS)))

    def update(self, values: Sequence[float]) -> None:
        """Take in one number, of float32's range, for each quantity."""
        for row, value in zip(self.sums, values, strict=True):
            _set_parts(row, [*row.tolist(), value])
        self.count += 1

    def merge(self, other: ExactMeans) -> ExactMeans:
        """Both together; neither operand changes."""
        if not other.count:
            return ExactMeans(self.sums.copy(), self.count)
        out = ExactMeans(np.zeros_like(self.sums), self.count + other.count)
        for row, a, b in zip(out.sums, self.sums, other.sums, strict=True):
            _set_parts(row, [*a.tolist(), *b.tolist()])
        return out

    def means(self) -> tuple[float, ...]:
        """The mean of each quantity; NaN where nothing was seen."""
        if not self.count:
            return (math.nan,) * len(self.sums)
        return tuple((self.sums[:, 0] / self.count).tolist())


def _set_parts(row: npt.NDArray[np.float64], numbers: list[float]) -> None:
    """Write the sum of the numbers as parts; math.fsum rounds the exact sum once."""
    terms, parts = [n for n in numbers if n], []
    while (rest := math.fsum(terms)) and len(parts) < _PARTS:
        parts.append(rest)
        terms.append(-rest)
    row[:] = 0
    row[: len(parts)] = parts


def octav_threshold(magnitudes: Counts, *, signed: bool) -> float:
    """The threshold of one sample that balances clipping and rounding, in bins.

    ``magnitudes`` counts ``|x|`` in bins of width 1 from zero on, exact zeros left out. From
    ``s = mean |x|`` on, at most 20 times::

        s = sum(|x|, |x| > s) / (4^-8 / (3u) * #(|x| <= s) + #(|x| > s))

    with u = 1 for signed numbers, 4 for others, whose step is half as wide: Newton's method for
    the clip with the least squared error. (Sakr et al., Optimal Clipping and Magnitude-aware
    Differentiation for Improved Quantization-aware Training, 2022, as TPU-MLIR applies it.)
    Numbers of one magnitude give the upper edge of their bin; without numbers it is 0.
    """
    used = int(np.flatnonzero(magnitudes)[-1]) + 1 if magnitudes.any() else 0
    if not used:
        return 0.0
    counts = magnitudes[used - 1 :: -1].astype(np.float64)
    centres = np.arange(used)[::-1] + 0.5
    above = np.concatenate(([0.0], np.cumsum(counts)))[::-1]
    mass = np.concatenate(([0.0], np.cumsum(counts * centres)))[::-1]
    rounding = _ROUNDING / (1 if signed else 4)
    threshold, cut = float(mass[0] / above[0]), -1
    for _ in range(_ITERATIONS):
        following = min(used, math.floor(threshold + 0.5))
        if following == cut:
            break
        cut = following
        outside = float(above[cut])
        if not outside:
            return float(used)
        threshold = float(mass[cut]) / (rounding * (float(above[0]) - outside) + outside)
    return threshold


def mean_deviation(counts: Counts, zeros: int) -> float:
    """``mean |x - mean|`` of one sample, in bins; 0 without numbers.

    ``counts`` [2*n] has bins of width 1 from -n on; ``zeros`` are the exact zeros among those of
    bin n. The deviations above the mean and below it are equal: one half is summed.
    """
    side = counts.size // 2
    weights = counts.astype(np.float64)
    weights[side] -= zeros
    centres = np.arange(-side, side) + 0.5
    total = weights.sum() + zeros
    if not total:
        return 0.0
    mean = float(weights @ centres) / total
    above = slice(side + math.floor(mean + 0.5), None)
    half = float(weights[above] @ centres[above]) - mean * float(weights[above].sum())
    return 2 * (half - min(0.0, mean) * zeros) / total
