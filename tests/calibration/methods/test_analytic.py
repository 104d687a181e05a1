"""octav and aciq, sample by sample, against loops over the samples and their histograms."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from qdqc.calibration.methods.analytic import (
    AciqGauss,
    AciqLaplace,
    Octav,
)
from qdqc.calibration.methods.method import EMPTY_THRESHOLD, TINY
from qdqc.calibration.statistics import Statistics
from qdqc.ir.types import Range


def check(found: Range, threshold: float, array: np.ndarray, rel: float = 1e-6) -> None:
    """The extremes, clipped to a threshold that is no larger than the largest of them."""
    absmax = float(np.abs(array).max())
    threshold = min(threshold, absmax)
    if absmax < TINY:
        assert found == Range(0, EMPTY_THRESHOLD, EMPTY_THRESHOLD)
        return
    if threshold < TINY:
        threshold = absmax
    low, high = min(0.0, float(array.min())), max(0.0, float(array.max()))
    assert found.threshold == pytest.approx(threshold, rel=rel)
    assert found.min == pytest.approx(max(low, -threshold), rel=rel)
    assert found.max == pytest.approx(min(high, threshold), rel=rel)


def middles(sample: np.ndarray) -> np.ndarray:
    """Each element moved to the middle of its bin; 4096 to 8192 of them reach the largest."""
    wide = sample.astype(np.float64)
    exponent = max(-126, math.frexp(float(np.abs(wide).max()))[1] - 13)
    width = 2.0**exponent
    return np.where(wide == 0, 0.0, (np.floor(wide / width) + 0.5) * width)


def mean_of(array: np.ndarray, threshold: Callable[[np.ndarray], float]) -> float:
    """The mean over the three samples that ``stats`` was given."""
    parts = [part for part in np.array_split(array, 3) if part.size]
    return sum(min(threshold(p), np.inf) for p in parts) / len(parts)


def octav(sample: np.ndarray, place: Callable[[np.ndarray], np.ndarray]) -> float:
    """TPU-MLIR's OCTAV, an iteration at a time."""
    absmax = float(np.abs(sample).max())
    held = [x for x in np.abs(place(sample)).tolist() if x > 0]
    if not held:
        return 0.0
    rounding = 4.0**-8 / 3 / (1 if sample.min() < 0 else 4)
    s = math.fsum(held) / len(held)
    for _ in range(20):
        above = [x for x in held if x > s]
        if not above:
            return absmax
        s = math.fsum(above) / (rounding * (len(held) - len(above)) + len(above))
    return min(s, absmax)


def test_octav_on_the_histograms_of_the_samples(array: np.ndarray, stats: Statistics) -> None:
    found = Octav().range(stats)
    check(found, mean_of(array, lambda s: octav(s, middles)), array)


def smooth(array: np.ndarray) -> bool:
    """Whether no single element or number makes most of the result."""
    magnitude = np.abs(array.astype(np.float64))
    return np.unique(array).size > 10_000 and magnitude.max() < 100 * magnitude.mean()


def test_octav_on_the_elements(array: np.ndarray, stats: Statistics) -> None:
    if smooth(array):
        expected = mean_of(array, lambda s: octav(s, lambda x: x.astype(np.float64)))
        check(Octav().range(stats), expected, array, rel=1e-3)


def gauss(sample: np.ndarray) -> float:
    wide = [float(x) for x in sample]
    if len(wide) == 1:
        return 0.0
    spread = (max(wide) - min(wide)) / math.sqrt(2 * math.log(len(wide)))
    return 3.92403337 * 0.175 * (1 + math.sqrt(math.pi * math.log(4))) * spread


def test_aciq_gauss_on_the_elements(array: np.ndarray, stats: Statistics) -> None:
    check(AciqGauss().range(stats), mean_of(array, gauss), array)


def laplace(sample: np.ndarray) -> float:
    wide = sample.astype(np.float64).tolist()
    mean = math.fsum(wide) / len(wide)
    return 9.89675982 * math.fsum(abs(x - mean) for x in wide) / len(wide)


def test_aciq_laplace_on_the_histograms_of_the_samples(
    array: np.ndarray, stats: Statistics
) -> None:
    # "offset" leaves 1 part in 500 to the difference from the mean: the bins are coarse for it.
    found = AciqLaplace().range(stats)
    check(found, mean_of(array, lambda s: laplace(middles(s))), array)


def test_aciq_laplace_on_the_elements(array: np.ndarray, stats: Statistics) -> None:
    if smooth(array):
        check(AciqLaplace().range(stats), mean_of(array, laplace), array, rel=1e-3)


def test_statistics_without_samples_are_refused() -> None:
    held = Statistics()
    held.update(np.array([1.0, 2.0]))
    with pytest.raises(ValueError, match="no details of single samples"):
        Octav().range(held)
