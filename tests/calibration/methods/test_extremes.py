"""max, mean_minmax and percentile against loops over the elements or over their histogram."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import pytest

from qdqc.calibration.methods.extremes import (
    Max,
    MeanMinMax,
    Percentile,
)
from qdqc.calibration.methods.method import EMPTY_THRESHOLD, TINY
from qdqc.calibration.statistics import Statistics
from qdqc.ir.types import Range

Ends: TypeAlias = tuple[float, float]


def check(found: Range, ends: Ends, absmax: float) -> None:
    """The range with these ends, the wider of which is the threshold."""
    if absmax < TINY:
        assert found == Range(0, EMPTY_THRESHOLD, EMPTY_THRESHOLD)
        return
    low, high = min(0.0, ends[0]), max(0.0, ends[1])
    assert found.min == pytest.approx(low, rel=1e-6, abs=1e-6 * absmax)
    assert found.max == pytest.approx(high, rel=1e-6, abs=1e-6 * absmax)
    assert found.threshold == pytest.approx(max(-ends[0], ends[1]), rel=1e-6)


def test_max_is_that_of_the_elements(array: np.ndarray, stats: Statistics) -> None:
    elements = [float(x) for x in array]
    ends = (min(elements), max(elements))
    absmax = max(map(abs, elements))
    found = Max().range(stats)
    check(found, ends, absmax)
    assert found.threshold == (absmax if absmax >= TINY else EMPTY_THRESHOLD)


def test_mean_minmax_is_that_of_the_samples(array: np.ndarray, stats: Statistics) -> None:
    samples = [[float(x) for x in part] for part in np.array_split(array, 3) if part.size]
    low = sum(map(min, samples)) / len(samples)
    high = sum(map(max, samples)) / len(samples)
    check(MeanMinMax().range(stats), (low, high), float(np.abs(array).max()))


def quantile_by_bins(counts: list[int], width: float, wanted: float) -> float:
    """Walk the bins until so many elements are behind; within a bin they lie evenly."""
    side, seen = len(counts) // 2, 0
    for index, count in enumerate(counts):
        if seen + count >= wanted:
            inside = (wanted - seen) / max(1, count)
            return (index - side + inside) * width
        seen += count
    return math.inf


@pytest.mark.parametrize("percent", [99.99, 99.0, 60.0, 100.0])
def test_percentile_is_that_of_the_histogram(
    array: np.ndarray, stats: Statistics, percent: float
) -> None:
    # Of elements, the ends are known to a bin: a 4096th of the largest or less.
    low, high = float(array.min()), float(array.max())
    counts = np.histogram(array.astype(np.float64), stats.edges())[0].tolist()
    tail = (1 - percent / 100) / (2 if low < 0 < high else 1)
    ends = [quantile_by_bins(counts, stats.width, s * array.size) for s in (tail, 1 - tail)]
    ends = (max(low, ends[0]) if low < 0 else 0.0, min(high, ends[1]) if high > 0 else 0.0)
    found = Percentile(percentile=percent).range(stats)
    if max(-ends[0], ends[1]) >= TINY:
        check(found, ends, stats.absmax)
    else:
        assert found == Max().range(stats), "nearly all elements are zero"


@pytest.mark.parametrize("percent", [99.99, 99.0])
def test_percentile_is_that_of_the_elements_to_a_bin(
    array: np.ndarray, stats: Statistics, percent: float
) -> None:
    low, high = float(array.min()), float(array.max())
    share = (100 - percent) / (2 if low < 0 < high else 1)
    found = Percentile(percentile=percent).range(stats)
    if stats.absmax < TINY or found == Max().range(stats):
        return
    exact = np.sort(array.astype(np.float64))
    rank = min(array.size - 1, math.ceil((100 - share) / 100 * array.size))
    below, above = exact[max(0, rank - 2)], exact[min(array.size - 1, rank + 1)]
    if high > 0:
        assert below - stats.width <= found.max <= above + stats.width


def test_percentile_leaves_a_ten_thousandth_outside() -> None:
    bell = np.random.default_rng(0).standard_normal(200_000)
    for array in (bell, np.maximum(bell, 0), -np.abs(bell), bell**3):
        held = Statistics()
        held.update(array)
        found = Percentile().range(held)
        outside = np.count_nonzero((array < found.min) | (array > found.max)) / array.size
        assert outside == pytest.approx(1e-4, rel=0.1)


def test_mean_minmax_weighs_an_outlier_by_its_samples() -> None:
    held = Statistics()
    for largest in (1.0, 1.0, 1.0, 9.0):
        held.update(np.array([-0.5, largest]))
    assert MeanMinMax().range(held) == Range(-0.5, 3, 3)
