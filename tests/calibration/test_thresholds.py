"""The methods against straight-line computations of the same definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.calibration.statistics import Statistics
from compiler.calibration.thresholds import (
    EMPTY_THRESHOLD,
    METHODS,
    clip_errors,
    kl_divergences,
    kl_range,
    max_range,
    method_named,
    percentile_range,
)
from compiler.diagnostics import QdqcError
from compiler.ir.types import Range


def reference_kl(counts: np.ndarray, cut: int) -> float:
    """The divergence of one cut, bin by bin."""
    p = [float(c) for c in counts[:cut]]
    p[-1] += float(counts[cut:].sum())
    inside = [float(c) for c in counts[:cut]]
    q = [0.0] * cut
    for level in range(128):
        group = [k for k in range(cut) if k * 128 // cut == level]
        used = [k for k in group if p[k] > 0]
        for k in used:
            q[k] = sum(inside[i] for i in group) / len(used)
    if sum(q) == 0:
        return math.inf
    total, whole = sum(p), sum(q)
    out = 0.0
    for a, b in zip(p, q, strict=True):
        if a > 0:
            if b == 0:
                return math.inf
            out += a / total * math.log((a / total) / (b / whole))
    return out


def reference_error(counts: np.ndarray, absmax: float, low: float, high: float, i: int) -> float:
    """The squared error when everything above bin i is clipped."""
    width = absmax / len(counts)
    cut = (i + 1) * width
    step = (min(high, cut) - max(low, -cut)) / 255
    out = 0.0
    for k, count in enumerate(counts):
        centre = (k + 0.5) * width
        out += count * (step**2 / 12 if k <= i else (centre - cut) ** 2)
    return out


def histograms() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    bell = np.histogram(np.abs(rng.standard_normal(100_000)), 512)[0].astype(float)
    spike, ends, sparse, outlier = (np.zeros(512) for _ in range(4))
    spike[200] = 1000
    ends[0] = ends[511] = 500
    sparse[::37] = rng.integers(1, 100, sparse[::37].size)
    sparse[511] = 1
    outlier[:20] = rng.integers(1, 1000, 20)
    outlier[511] = 1
    return {
        "bell": bell,
        "flat": np.full(512, 7.0),
        "spike": spike,
        "ends": ends,
        "sparse": sparse,
        "outlier": outlier,
        "random": rng.integers(0, 5, 512).astype(float),
        "fractions": rng.random(512) * (rng.random(512) > 0.5),
        "mass at the end": np.concatenate([bell[:511] + 1, [30_000.0]]),
        "one": np.eye(1, 512, 511)[0],
    }


@pytest.mark.parametrize("name", list(histograms()))
def test_kl_is_the_straight_line_computation(name: str) -> None:
    counts = histograms()[name]
    found = kl_divergences(counts)
    assert found.size == 512 - 128 + 1
    for cut in (128, 129, 130, 200, 255, 256, 257, 384, 500, 511, 512):
        expected = reference_kl(counts, cut)
        assert found[cut - 128] == pytest.approx(expected, rel=1e-6, abs=1e-9), cut


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(0, 3) | st.integers(0, 10**6), min_size=140, max_size=160),
    st.integers(128, 140),
)
def test_kl_on_random_counts(numbers: list[int], cut: int) -> None:
    counts = np.array(numbers, float)
    if counts.sum():
        expected = reference_kl(counts, cut)
        assert kl_divergences(counts)[cut - 128] == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", list(histograms()))
@pytest.mark.parametrize(("low", "high"), [(0.0, 4.0), (-4.0, 3.0), (-0.3, 4.0)])
def test_clip_errors_are_the_straight_line_computation(name: str, low: float, high: float) -> None:
    counts = histograms()[name]
    found = clip_errors(counts, 4.0, low, high)
    for i in (0, 127, 128, 300, 510, 511):
        expected = reference_error(counts, 4.0, low, high, i)
        assert found[i] == pytest.approx(expected, rel=1e-6, abs=1e-9)


def stats_of(array: np.ndarray) -> Statistics:
    out = Statistics()
    out.update(np.asarray(array, np.float32))
    return out


BELL = np.random.default_rng(0).standard_normal(200_000).astype(np.float32)


def quantized_error(array: np.ndarray, found: Range) -> float:
    """Mean squared error of asymmetric u8 with the range, element by element."""
    scale = (found.max - found.min) / 255
    zero = round(-found.min / scale)
    codes = np.clip(np.round(array.astype(np.float64) / scale) + zero, 0, 255)
    return float(np.mean(((codes - zero) * scale - array) ** 2))


def test_kl_cuts_an_outlier_off() -> None:
    found = kl_range(stats_of(np.append(BELL, 8)))
    assert 3 < found.threshold < 6
    assert found.max == found.threshold
    assert found.min == -found.threshold


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.clip(3 * BELL, 0, 6), Range(0, 6, 6)),
        (np.clip(2 * BELL, -1, 1), Range(-1, 1, 1)),
        (np.repeat(np.arange(-5, 6), 100), Range(-5, 5, 5)),
        (np.full(1000, 7.0), Range(0, 7, 7)),
        (np.full(1000, -7.0), Range(-7, 0, 7)),
    ],
)
def test_kl_keeps_mass_at_the_end(array: np.ndarray, expected: Range) -> None:
    assert kl_range(stats_of(array)) == expected


@pytest.mark.parametrize("seed", range(6))
def test_kl_is_not_worse_than_max_by_squared_error(seed: int) -> None:
    # Up to the model of the error: 10 percent for elements that are not spread evenly.
    rng = np.random.default_rng(seed)
    arrays = [
        rng.laplace(size=50_000),
        np.maximum(rng.standard_normal(50_000), 0) ** 2,
        rng.standard_t(3, size=50_000),
        rng.exponential(size=50_000) - 0.2,
    ]
    for array in arrays:
        stats = stats_of(array)
        bound = 1.1 * quantized_error(array, max_range(stats))
        assert quantized_error(array, kl_range(stats)) <= bound


def test_zeros_do_not_matter_to_kl() -> None:
    array = np.append(BELL, 9)
    with_zeros = kl_range(stats_of(np.concatenate([array, np.zeros(1_000_000)])))
    assert with_zeros == kl_range(stats_of(array))


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize(
    "array",
    [
        np.maximum(BELL, 0),
        BELL,
        -np.abs(BELL),
        np.array([5.0]),
        np.array([2.0, 3.0]),
        np.array([1e-38, -3e-39]),
        np.array([3e38, -1.0]),
        np.append(np.zeros(100_000), 1.0),
        np.linspace(4, 5, 5000),
    ],
    ids=["relu", "bell", "negative", "one", "positive", "tiny", "huge", "rare", "offset"],
)
def test_ranges_hold_zero_and_lie_within_the_observed(method: str, array: np.ndarray) -> None:
    stats = stats_of(array)
    found = METHODS[method](stats, 2048)
    assert found.min <= 0 <= found.max
    assert found.max > found.min
    if stats.min >= 0:
        assert found.min == 0
    if stats.absmax > 1e-30:
        assert stats.min <= found.min or found.min == 0
        assert stats.max >= found.max or found.max == 0
        assert found.threshold == pytest.approx(max(-found.min, found.max))


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("array", [np.zeros(10), np.array([]), np.full(4, 1e-42)])
def test_values_that_are_zero_get_some_range(method: str, array: np.ndarray) -> None:
    found = METHODS[method](stats_of(array), 2048)
    assert found == Range(0, EMPTY_THRESHOLD, EMPTY_THRESHOLD)


def test_percentile_leaves_a_ten_thousandth_outside() -> None:
    for array in (BELL, np.maximum(BELL, 0), -np.abs(BELL), BELL**3):
        found = percentile_range(stats_of(array))
        outside = np.count_nonzero((array < found.min) | (array > found.max)) / array.size
        assert outside == pytest.approx(1e-4, rel=0.1)


def test_methods_by_name() -> None:
    assert method_named("use_KL") is kl_range
    with pytest.raises(QdqcError, match="no calibration method 'precentile9999'; did you mean"):
        method_named("precentile9999")


def test_kl_of_a_tensor_takes_milliseconds() -> None:
    import time

    stats, best = stats_of(BELL), math.inf
    for _ in range(3):
        start = time.perf_counter()
        kl_range(stats)
        best = min(best, time.perf_counter() - start)
    assert best < 0.06, "2 to 8 ms alone on a core"
