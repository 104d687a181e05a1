"""Quantities of single samples against loops over the same definitions."""

from __future__ import annotations

import math
from fractions import Fraction
from random import Random

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qdqc.calibration.sample_means import ExactMeans, mean_deviation, octav_threshold
from qdqc.calibration.statistics import Collector, Detail, Statistics

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def means_of(numbers: list[float]) -> ExactMeans:
    out = ExactMeans.of(1)
    for number in numbers:
        out.update((number,))
    return out


@given(st.lists(FLOATS), st.integers(0, 10), st.randoms())
@example([3e38, 1e-45, -3e38, 1.0, 1e-30], 2, Random(0))
def test_sums_are_exact_in_any_order(numbers: list[float], cut: int, random: Random) -> None:
    found = means_of(numbers)
    exact = sum(map(Fraction, numbers), Fraction(0))
    assert sum(map(Fraction, found.sums[0].tolist()), Fraction(0)) == exact
    if numbers:
        assert found.means()[0] == pytest.approx(float(exact / len(numbers)), rel=1e-12)
    shuffled = random.sample(numbers, len(numbers))
    merged = means_of(shuffled[:cut]).merge(means_of(shuffled[cut:]))
    assert merged.count == found.count
    np.testing.assert_array_equal(merged.sums, found.sums)


def test_means_of_nothing_are_nan() -> None:
    assert all(map(math.isnan, ExactMeans.of(3).means()))


def octav_by_loops(counts: list[int], signed: bool) -> float:
    """The definition, an element at a time."""
    elements = [i + 0.5 for i, count in enumerate(counts) for _ in range(count)]
    rounding = 4.0**-8 / 3 / (1 if signed else 4)
    s = sum(elements) / len(elements)
    for _ in range(20):
        above = [e for e in elements if e > s]
        s_next = sum(above) / (rounding * (len(elements) - len(above)) + len(above))
        if abs(s_next - s) < 1e-12:
            break
        s = s_next
    return s


def deviation_by_loops(counts: list[int], zeros: int) -> float:
    side = len(counts) // 2
    elements = [i - side + 0.5 for i, count in enumerate(counts) for _ in range(count)]
    for _ in range(zeros):
        elements[elements.index(0.5)] = 0.0
    mean = sum(elements) / len(elements)
    return sum(abs(e - mean) for e in elements) / len(elements)


@pytest.mark.parametrize("signed", [True, False])
@given(st.lists(st.integers(0, 30), min_size=2, max_size=60))
@example([1000, *[0] * 50, 1])
@example([*range(40), 500])
def test_octav_is_the_straight_line_computation(signed: bool, counts: list[int]) -> None:
    if np.count_nonzero(counts) > 1:
        found = octav_threshold(np.array(counts), signed=signed)
        assert found == pytest.approx(octav_by_loops(counts, signed), rel=1e-9)


def test_numbers_of_one_magnitude_keep_it() -> None:
    assert octav_threshold(np.array([0, 0, 9, 0]), signed=False) == 3
    assert octav_threshold(np.zeros(8, int), signed=True) == 0


@given(st.lists(st.integers(0, 20), min_size=4, max_size=30), st.integers(0, 20))
def test_mean_deviation_is_the_straight_line_computation(counts: list[int], zeros: int) -> None:
    counts = counts[: len(counts) // 2 * 2]
    zeros = min(zeros, counts[len(counts) // 2])
    if sum(counts):
        found = mean_deviation(np.array(counts), zeros)
        assert found == pytest.approx(deviation_by_loops(counts, zeros), rel=1e-9, abs=1e-9)


def test_mean_deviation_of_nothing_and_of_zeros() -> None:
    assert mean_deviation(np.zeros(6, int), 0) == 0
    assert mean_deviation(np.array([0, 0, 0, 5, 0, 0]), 5) == 0


def samples() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [
        np.maximum(rng.standard_normal((3, 400)), 0) * 7,
        rng.laplace(size=3000) * 0.01,
        rng.standard_normal(500) * 1000 - 300,
        np.full(7, 3.0),
        np.array([2.0]),
    ]


def test_samples_against_their_elements() -> None:
    # The histogram of a sample tells its elements to an 8192th of the largest or better.
    for array in samples():
        stats = Statistics()
        stats.update_sample(array)
        flat = np.abs(array.astype(np.float32).astype(np.float64).ravel())
        low, high, spread = stats.extremes.means()
        assert (low, high) == (array.astype(np.float32).min(), array.astype(np.float32).max())
        size = array.size
        expected = (high - low) / math.sqrt(2 * math.log(size)) if size > 1 else 0
        assert spread == pytest.approx(expected, rel=1e-12)
        threshold, deviation = stats.clips.means()
        exact = float(np.abs(array - array.mean()).mean())
        assert deviation == pytest.approx(exact, rel=1e-3, abs=flat.max() / 8192)
        assert threshold <= flat.max()
        if np.unique(flat).size > 1:
            counts = np.sort(flat[flat > 0])
            assert threshold == pytest.approx(raw_octav(counts, array.min() < 0), rel=1e-3)


def raw_octav(magnitudes: np.ndarray, signed: bool) -> float:
    """OCTAV on the elements themselves."""
    rounding = 4.0**-8 / 3 / (1 if signed else 4)
    s = float(magnitudes.mean())
    for _ in range(20):
        above = magnitudes[magnitudes > s]
        s = float(above.sum()) / (rounding * (magnitudes.size - above.size) + above.size)
    return s


def test_sample_statistics_are_the_same_and_merge_in_any_order() -> None:
    arrays = samples()
    details = (Detail.HISTOGRAM, Detail.SAMPLES, Detail.SAMPLES)
    plain, whole, back = (Collector(detail=d) for d in details)
    for collector in (plain, whole):
        for array in arrays:
            collector.update("x", array)
    for array in reversed(arrays):
        one = Collector(detail=Detail.SAMPLES)
        one.update("x", array)
        back = back.merge(one)
    a, b, c = (k.statistics["x"] for k in (plain, whole, back))
    for other in (b, c):
        np.testing.assert_array_equal(a.counts, other.counts)
        np.testing.assert_array_equal(a.extremes.sums, other.extremes.sums)
        assert (a.count, a.zeros, a.exponent) == (other.count, other.zeros, other.exponent)
    np.testing.assert_array_equal(b.clips.sums, c.clips.sums)
    assert b.clips.count == c.clips.count == len(arrays)
    assert a.clips.count == 0


def test_a_sample_without_numbers_counts_in_no_mean() -> None:
    stats = Statistics()
    stats.update_sample(np.full(3, np.nan))
    stats.update_sample(np.array([]))
    stats.update_sample(np.array([-1.0, 2.0, np.inf]))
    assert stats.extremes.count == stats.clips.count == 1
    assert stats.extremes.means()[:2] == (-1, 2)
    assert (stats.count, stats.nans, stats.infs) == (2, 3, 1)
