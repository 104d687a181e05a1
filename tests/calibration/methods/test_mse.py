"""mse against the same model of error, element by element."""

from __future__ import annotations

import numpy as np
import pytest

from qdqc.calibration.methods.method import EMPTY_THRESHOLD, TINY
from qdqc.calibration.methods.mse import Mse
from qdqc.calibration.statistics import Statistics
from qdqc.ir.types import Range


def modelled_error(array: np.ndarray, low: float, high: float, steps: int) -> float:
    """Sum of squared errors: step^2/12 and squared distance outside, nothing for zeros."""
    wide = array.astype(np.float64)
    outside = np.maximum(wide - high, 0) + np.maximum(low - wide, 0)
    return np.count_nonzero(wide) * ((high - low) / steps) ** 2 / 12 + float((outside**2).sum())


def real_error(array: np.ndarray, found: Range, *, symmetric: bool = False) -> float:
    """Mean squared error of u8, asymmetric or with the middle as zero, element by element."""
    low, high = found.min, found.max
    if symmetric:
        low = 0.0 if found.min >= 0 else -found.threshold
        high = found.threshold
    scale = high / 127 if symmetric and low < 0 else (high - low) / 255
    zero = 128 if symmetric and low < 0 else round(-low / scale)
    codes = np.clip(np.round(array.astype(np.float64) / scale) + zero, 0, 255)
    return float(np.mean(((codes - zero) * scale - array) ** 2))


def test_no_pair_of_ends_is_better(array: np.ndarray, stats: Statistics) -> None:
    # The bins place an element to a 4096th of the largest: so much is allowed.
    found = Mse().range(stats)
    if stats.absmax < TINY:
        assert found == Range(0, EMPTY_THRESHOLD, EMPTY_THRESHOLD)
        return
    best = modelled_error(array, found.min, found.max, 255)
    slack = np.count_nonzero(array) * (stats.absmax / 4096) ** 2
    low, high = min(0.0, float(array.min())), max(0.0, float(array.max()))
    rng = np.random.default_rng(1)
    for a, b in [(1, 1), (0.9, 1), (1, 0.9), *rng.random((200, 2)).tolist()]:
        other = modelled_error(
            array, np.ceil(a * 256) / 256 * low, np.ceil(b * 256) / 256 * high, 255
        )
        assert best <= 1.01 * other + slack


def test_no_threshold_is_better(array: np.ndarray, stats: Statistics) -> None:
    found = Mse().range(stats)
    if stats.absmax < TINY:
        return
    signed = bool(array.min() < 0)

    def error(threshold: float) -> float:
        low = -threshold if signed else 0.0
        return modelled_error(array, low, threshold, 254 if signed else 255)

    slack = np.count_nonzero(array) * (stats.absmax / 4096) ** 2
    best = error(found.threshold)
    for step in range(1, 257):
        assert best <= 1.01 * error(stats.absmax * step / 256) + slack


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_the_rounded_numbers_are_nearer_than_with_max(seed: int, symmetric: bool) -> None:
    rng = np.random.default_rng(seed)
    for array in (
        rng.laplace(size=50_000),
        np.maximum(rng.standard_normal(50_000), 0) ** 2,
        rng.standard_t(3, size=50_000),
        rng.exponential(size=50_000) - 0.2,
    ):
        held = Statistics()
        held.update(array)
        found = Mse().range(held)
        largest = float(np.abs(array).max())
        widest = Range(min(0.0, float(array.min())), float(array.max()), largest)
        bound = real_error(array, widest, symmetric=symmetric)
        assert real_error(array, found, symmetric=symmetric) < bound


def test_mass_at_the_end_stays() -> None:
    held = Statistics()
    held.update(np.clip(3 * np.random.default_rng(0).standard_normal(50_000), -1, 6))
    assert Mse().range(held) == Range(-1, 6, 6)
