"""kl and kl_tpu against straight-line computations of the same definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdqc.calibration.methods.extremes import Max
from qdqc.calibration.methods.kl import (
    Kl,
    KlTpu,
    clip_errors,
    kl_divergences,
    tpu_divergences,
)
from qdqc.calibration.methods.method import TINY
from qdqc.calibration.statistics import Statistics
from qdqc.ir.types import Range


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
    found = Kl().range(stats_of(np.append(BELL, 8)))
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
    assert Kl().range(stats_of(array)) == expected


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
        bound = 1.1 * quantized_error(array, Max().range(stats))
        assert quantized_error(array, Kl().range(stats)) <= bound


def test_zeros_do_not_matter_to_kl() -> None:
    array = np.append(BELL, 9)
    with_zeros = Kl().range(stats_of(np.concatenate([array, np.zeros(1_000_000)])))
    assert with_zeros == Kl().range(stats_of(array))


def reference_tpu(counts: list[float], cut: int) -> float:
    """The divergence of one of TPU-MLIR's cuts, bin by bin."""
    total, inside = sum(counts), sum(counts[:cut])
    p = [c / total for c in counts[:cut]]
    p[-1] += sum(counts[cut:]) / total
    out, size = 0.0, cut // 128
    for start in range(0, cut, size):
        group = counts[start : start + size]
        used = sum(1 for c in group if c > 0)
        for k in range(start, start + size):
            q = sum(group) / used / inside if counts[k] > 0 else 0.0
            out += p[k] * (math.log10(p[k] + 1e-30) - math.log10(q + 1e-30))
    return out


@pytest.mark.parametrize("name", list(histograms()))
def test_the_divergences_of_kl_tpu_are_the_straight_line_computation(name: str) -> None:
    counts = histograms()[name]
    found = tpu_divergences(counts)
    assert found.size == 4
    for index, cut in enumerate((128, 256, 384, 512)):
        expected = reference_tpu(counts.tolist(), cut)
        assert found[index] == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_histograms_of_other_sizes_are_padded_with_zeros() -> None:
    counts = np.arange(300.0)
    padded = np.append(counts, np.zeros(84))
    np.testing.assert_array_equal(tpu_divergences(counts), tpu_divergences(padded))


def tpu_threshold(counts: list[float], absmax: float) -> float:
    """TPU-MLIR's kl: 2048 bins of width absmax / 2047, 16 cuts."""
    cuts = range(128, 2049, 128)
    divergences = [reference_tpu(counts, cut) for cut in cuts]
    best = min(range(16), key=lambda i: divergences[i])
    return min(absmax, absmax / 2047 * cuts[best])


def counted(array: np.ndarray, width: float) -> list[float]:
    """Each element in the bin around its magnitude."""
    counts = [0.0] * 2048
    for x in array.tolist():
        if x:
            counts[math.floor(abs(x) / width + 0.5)] += 1
    return counts


def divided(array: np.ndarray, width: float, fine: float, absmax: float) -> list[float]:
    """Fine bins, each divided among the bins that it straddles."""
    counts = [0.0] * 2048
    for x in array.tolist():
        if x:
            index = math.floor(x / fine) if x > 0 else -math.floor(x / fine) - 1
            low, high = index * fine, min((index + 1) * fine, absmax)
            first, last = (math.floor(v / width + 0.5) for v in (low, high))
            for k in range(first, min(last, 2047) + 1):
                part = min(high, (k + 0.5) * width) - max(low, (k - 0.5) * width)
                counts[k] += max(part, 0.0) / (high - low) if high > low else float(k == last)
    return counts


def test_the_threshold_of_kl_tpu(array: np.ndarray, stats: Statistics) -> None:
    """On the fine bins, divided in proportion; on the elements, where no bin is a spike."""
    found = KlTpu().range(stats)
    absmax = stats.absmax
    if absmax < TINY:
        assert found == Max().range(stats)
        return
    counts = divided(array, absmax / 2047, stats.width, absmax)
    assert found.threshold == pytest.approx(tpu_threshold(counts, absmax), rel=1e-6)
    if np.unique(array, return_counts=True)[1].max() < 10:
        counts = counted(array, absmax / 2047)
        assert found.threshold == pytest.approx(tpu_threshold(counts, absmax), rel=1e-6)
    assert found.max == min(max(stats.max, 0.0), found.threshold)
    assert found.min == max(min(stats.min, 0.0), -found.threshold)
