from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qdqc.calibration.statistics import CHUNK, SIDE, Collector, Statistics

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
# Numbers of one magnitude or within 2**126 of each other: beyond that a quotient by the width is
# subnormal, and a bin is off by one next to zero.
NORMAL = st.one_of(
    st.just(0.0),
    st.floats(2.0**-40, 2.0**40, width=32),
    st.floats(-(2.0**40), -(2.0**-40), width=32),
    st.integers(-9000, 9000).map(float),
)
ARRAYS = hnp.arrays(np.float32, st.integers(0, 200), elements=NORMAL)


def stats_of(*arrays: np.ndarray) -> Statistics:
    out = Statistics()
    for array in arrays:
        out.update(array)
    return out


def assert_same(a: Statistics, b: Statistics) -> None:
    assert (a.count, a.zeros, a.nans, a.infs) == (b.count, b.zeros, b.nans, b.infs)
    assert (a.min, a.max, a.exponent) == (b.min, b.max, b.exponent)
    np.testing.assert_array_equal(a.counts, b.counts)


@given(ARRAYS, ARRAYS, ARRAYS)
def test_merging_is_the_statistics_of_the_whole(
    a: np.ndarray, b: np.ndarray, c: np.ndarray
) -> None:
    whole = stats_of(np.concatenate([a, b, c]))
    assert_same(stats_of(a).merge(stats_of(b)).merge(stats_of(c)), whole)
    assert_same(stats_of(c).merge(stats_of(b, a)), whole)
    assert_same(stats_of(b, c, a), whole)


@given(ARRAYS)
def test_histogram_is_numpys(array: np.ndarray) -> None:
    found = stats_of(array)
    expected, _ = np.histogram(array.astype(np.float64), found.edges())
    np.testing.assert_array_equal(found.counts, expected if array.size else [])
    assert found.counts.sum() == array.size == found.count
    assert found.zeros == np.count_nonzero(array == 0)
    if array.size:
        assert found.min == array.min()
        assert found.max == array.max()


@settings(max_examples=300)
@given(hnp.arrays(np.float32, st.integers(1, 50), elements=FLOATS))
@example(np.array([-(2.0**-126), 2.0**36], np.float32))
def test_every_finite_number_is_counted(array: np.ndarray) -> None:
    found = stats_of(array, array[:1])
    assert found.counts.sum() == found.count == array.size + 1
    absmax = found.absmax
    used = absmax / found.width
    assert used < SIDE
    assert used >= SIDE / 2 or found.exponent == -126


@given(ARRAYS, st.sampled_from([(0.0, math.inf), (-3.0, math.inf), (-2.5, 2.5), (1.0, 4.0)]))
@example(np.array([-5, -4], np.float32), (0.0, math.inf))
def test_clipped_statistics_are_those_of_clipped_numbers(
    array: np.ndarray, domain: tuple[float, float]
) -> None:
    stats = stats_of(array).within(*domain)
    low, high = min(domain[0], 0.0), max(domain[1], 0.0)
    clipped = stats_of(np.clip(array, low, high))
    assert (stats.count, stats.zeros) == (clipped.count, clipped.zeros)
    if not stats.count:
        return
    assert (stats.min, stats.max) == (clipped.min, clipped.max)
    clipped._widen(stats.exponent)
    if stats.exponent == clipped.exponent:
        np.testing.assert_array_equal(stats.counts, clipped.counts)


def test_a_range_that_grows_by_far_loses_no_counts() -> None:
    rng = np.random.default_rng(0)
    found = Statistics()
    for power in (-30, -20, 0, 1, 40, 2):
        found.update((rng.standard_normal(1000) * 2.0**power).astype(np.float32))
    assert found.counts.sum() == 6000
    signs = found.counts[:SIDE].sum()
    assert 2700 < signs < 3300, "no number changed its sign"


def test_chunks_do_not_matter() -> None:
    rng = np.random.default_rng(1)
    array = rng.standard_normal(2 * CHUNK + 17, dtype=np.float32)
    found = stats_of(array.reshape(1, -1, 1))
    expected, _ = np.histogram(array.astype(np.float64), found.edges())
    np.testing.assert_array_equal(found.counts, expected)
    assert_same(stats_of(array[5:], array[:5]), found)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32, np.uint8, np.bool_])
def test_other_types_count_as_float32(dtype: type) -> None:
    array = np.array([[0, 1], [1, 0]]).astype(dtype)
    assert_same(stats_of(array), stats_of(array.astype(np.float32)))


def test_views_and_empty_arrays() -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    assert_same(stats_of(array.transpose(2, 0, 1)[::-1]), stats_of(array))
    assert_same(stats_of(np.zeros((0, 3), np.float32)), Statistics())
    assert Statistics().absmax == 0


def test_nonfinite_numbers_are_counted_apart() -> None:
    array = np.array([1, math.nan, -math.inf, 2, math.inf, math.nan, 0], np.float32)
    found = stats_of(array)
    assert (found.count, found.nans, found.infs) == (3, 2, 2)
    assert (found.min, found.max, found.zeros) == (0, 2, 1)
    assert_same(stats_of(np.array([0, 2, 1], np.float32)).merge(Statistics(nans=2, infs=2)), found)
    assert stats_of(np.full(3, np.nan)).count == 0
    assert stats_of(np.array([1e300])).infs == 1


@pytest.mark.parametrize("bins", [128, 2048])
@pytest.mark.parametrize("absmax", [1.0, 5.9999, 6.0, 8.0])
def test_magnitudes_against_numpy(bins: int, absmax: float) -> None:
    rng = np.random.default_rng(2)
    array = np.clip(rng.standard_normal(1 << 18), -3, 3) / 3 * absmax
    array = array.astype(np.float32)
    array[:1000] = 0
    found = stats_of(array).magnitudes(bins)
    largest = float(np.abs(array).max())
    expected, _ = np.histogram(np.abs(array[array != 0]), bins, (0, largest))
    assert found.sum() == pytest.approx(expected.sum())
    assert found[-1] == pytest.approx(expected[-1], rel=0.1)
    noise = 5 * np.sqrt(expected + 1)
    assert (np.abs(found - expected) <= noise).all()
    np.testing.assert_allclose(np.cumsum(found), np.cumsum(expected), atol=noise.max())


def test_quantiles_are_numpys_to_a_bin() -> None:
    rng = np.random.default_rng(3)
    array = (rng.standard_normal(100_000) ** 3).astype(np.float32)
    found = stats_of(array)
    for share in (0.0, 1e-4, 0.01, 0.5, 0.9, 0.9999, 1.0):
        expected = float(np.quantile(array, share))
        near = np.sort(array)[[max(0, int(share * 99_999) - 1), min(99_999, int(share * 1e5) + 1)]]
        slack = found.width + float(near[1] - near[0])
        assert found.quantile(share) == pytest.approx(expected, abs=slack)


def test_collector_reports_the_first_bad_tensor() -> None:
    collector = Collector()
    good, bad = np.ones(3, np.float32), np.array([1, np.nan], np.float32)
    for sample in ({"a": good, "b": good}, {"a": good, "b": bad}, {"a": bad, "b": bad}):
        for name, array in sample.items():
            collector.update(name, array)
        collector.end_sample()
    assert [(n.name, n.sample) for n in collector.nonfinite] == [("b", 1), ("a", 2)]
    assert collector.samples == 3
    assert collector.statistics["a"].count == 7


@settings(max_examples=20)
@given(st.lists(ARRAYS, min_size=1, max_size=4), st.integers(0, 4))
def test_collectors_merge(samples: list[np.ndarray], cut: int) -> None:
    def collected(part: list[np.ndarray]) -> Collector:
        out = Collector()
        for array in part:
            out.update("x", array)
            out.update("y", array * np.float32(0.5))
            out.end_sample()
        return out

    whole = collected(samples)
    merged = collected(samples[:cut]).merge(collected(samples[cut:]))
    assert merged.samples == whole.samples
    for name, stats in whole.statistics.items():
        assert_same(merged.statistics[name], stats)


def test_memory_does_not_grow_with_the_samples() -> None:
    found = Statistics()
    for i in range(50):
        found.update(np.full(10, 2.0**i, np.float32))
    assert found.counts.nbytes == 2 * SIDE * 8
    assert found.count == 500
