"""Samples pooled into one similarity, held against sums by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from qdqc.runtime.comparison.choices import Choices
from qdqc.runtime.comparison.compare import Level, cosine
from qdqc.runtime.comparison.pooled import FEW, Pool, Pools, similarity

RNG = np.random.default_rng(0)
TIGHT = (0.99, 0.99)


def pooled(values: Any, references: Any) -> Pool:
    pool = Pool()
    for value, reference in zip(values, references, strict=True):
        pool.see(np.asarray(value), np.asarray(reference))
    return pool


def test_cosines_are_means_and_the_sqnr_is_of_all() -> None:
    exact = RNG.standard_normal((5, 20)) * np.array([[1], [100], [1], [0], [1]])
    value = exact + RNG.standard_normal((5, 20)) * 0.1
    row = pooled(value, exact).similarity("x", TIGHT)
    noise, power = np.sum((value - exact) ** 2), np.sum(exact**2)
    assert row.sqnr == pytest.approx(10 * math.log10(power / noise))
    cosines = [cosine(v, e) for v, e in zip(value, exact, strict=True)]
    assert row.cos == pytest.approx(np.mean(cosines))
    assert row.max_abs == pytest.approx(np.abs(value - exact).max())


@pytest.mark.parametrize(("kept", "share"), [(0, 0.0), (2, 2 / 3), (3, 1.0)])
def test_chosen_rows_of_which_one_run_has_none(kept: int, share: float) -> None:
    pool, exact = Pool(is_set=True), np.array([[0, 0, 1], [0, 0, 5], [0, 1, 2]])
    pool.see(exact[::-1][:kept], exact)
    assert pool.similarity("x", TIGHT).share_equal == pytest.approx(share)
    empty = Pool(is_set=True)
    empty.see(exact[:0], exact[:0])
    assert empty.similarity("x", TIGHT).passed


def test_an_exact_sample_leaves_the_figure_finite() -> None:
    exact = [np.ones(20), np.ones(20)]
    row = pooled([np.ones(20), np.ones(20) * 1.1], exact).similarity("x", TIGHT)
    assert row.sqnr == pytest.approx(10 * math.log10(40 / (20 * 0.01)))


def answers(lost: bool) -> tuple[Any, Any]:
    """Thirty answers of a wake word net, of which two are yes; one of these is lost."""
    exact = np.full((30, 1), 0.02)
    exact[[3, 17]] = 0.98
    value = exact + 0.001
    if lost:
        value[3] = 0.5
    return value, exact


def test_a_lost_answer_is_seen_where_all_cosines_are_one() -> None:
    value, exact = answers(lost=True)
    singles = [similarity("x", v, e).cos for v, e in zip(value, exact, strict=True)]
    assert pooled(*answers(lost=False)).likeness() > 0.9999
    found = pooled(value, exact).similarity("x", (0.95, 0.0))
    noise, spread = np.sum((value - exact) ** 2), np.sum((exact - exact.mean()) ** 2)
    assert found.cos == pytest.approx(1 / math.sqrt(1 + noise / spread))
    assert found.few
    assert found.level is Level.NOT_SIMILAR
    assert found.max_abs == pytest.approx(0.48)
    assert np.mean(singles) > 0.98, "what a mean over samples shows"


def test_a_large_offset_hides_nothing() -> None:
    exact = 10 + RNG.standard_normal((40, 1))
    near, lost = exact + 0.01, np.full((40, 1), 10.0)
    assert pooled(near, exact).likeness() > 0.999
    assert pooled(lost, exact).likeness() < 0.8
    assert similarity("x", lost, exact).cos == pytest.approx(pooled(lost, exact).likeness())


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (1, 1, 1), (1, 1, 1, 1)])
def test_one_number_is_one_number_whatever_its_rank(shape: tuple[int, ...]) -> None:
    exact = RNG.uniform(0, 1, 12)
    lost = np.full(12, 0.5)
    likeness = pooled(lost.reshape(12, *shape), exact.reshape(12, *shape)).likeness()
    noise, spread = np.sum((lost - exact) ** 2), np.sum((exact - exact.mean()) ** 2)
    assert likeness == pytest.approx(1 / math.sqrt(1 + noise / spread))


@pytest.mark.parametrize("offset", [100.0, 1000.0])
def test_an_answer_a_thousand_times_smaller_than_its_offset_can_be_lost(offset: float) -> None:
    exact = offset + RNG.standard_normal((40, 1))
    near, lost = exact.astype(np.float32), np.full((40, 1), offset)
    assert pooled(near, exact).similarity("x", TIGHT).passed
    assert pooled(lost, exact).similarity("x", (0.9, 0.8)).level is Level.NOT_SIMILAR


def test_one_sample_is_held_against_its_power() -> None:
    row = similarity("x", np.array([0.5]), np.array([1.0]))
    assert row.cos == pytest.approx(1 / math.sqrt(1.25))


def test_answers_that_never_change_are_not_held_to_their_rounding() -> None:
    exact = np.full((20, 2), 0.5)
    assert pooled(exact + 1e-4, exact).likeness() > 0.999


@pytest.mark.parametrize(("shape", "few"), [((), True), ((FEW,), True), ((FEW + 1,), False)])
def test_few_numbers_are_at_most_three(shape: tuple[int, ...], few: bool) -> None:
    assert similarity("x", np.zeros(shape), np.ones(shape)).few == few
    assert similarity("x", np.zeros((1, *shape)), np.ones((1, *shape))).few == few


def test_labels_are_equal_or_not() -> None:
    row = similarity("x", np.array([3, 900, 5, 7]), np.array([3, 901, 5, 7]), (0.9, 0.9))
    assert (row.labels, row.share_equal, row.level) == (True, 0.75, Level.NOT_SIMILAR)
    assert similarity("x", np.array(["a"]), np.array(["a"])).level is Level.EQUAL
    pixels = similarity("x", np.full(9, 200, np.uint8), np.full(9, 201, np.uint8))
    assert not pixels.labels


def test_sets_of_rows_have_no_order_and_no_length() -> None:
    pool = Pool(is_set=True)
    pool.see(np.array([[0, 1, 5], [0, 2, 6]]), np.array([[0, 2, 6], [0, 1, 5], [0, 3, 7]]))
    assert pool.similarity("x", TIGHT).share_equal == pytest.approx(2 / 3)


def test_another_shape_matches_nothing() -> None:
    pool = pooled([np.ones((2, 3))], [np.ones((3, 2))])
    assert pool.likeness() == -1
    assert pool.similarity("x", TIGHT).level is Level.NOT_MATCH
    assert math.isinf(pool.noise_to_signal())


def test_what_is_not_finite_scores_least() -> None:
    for exact in (np.ones(20), np.ones(1)):
        assert pooled([exact * np.nan], [exact]).likeness() == -1
        assert math.isinf(pooled([exact * np.nan], [exact]).noise_to_signal())


@pytest.mark.parametrize(
    ("value", "passed"),
    [
        ([[5.0, 5.0]], True),
        ([[np.nan, 5.0]], False),
        ([[5.0, 5.0], [6.0, 6.0]], True),
        ([[5.0, 5.0], [np.inf, 6.0]], False),
    ],
)
def test_a_choice_excuses_other_numbers_and_shapes_but_no_nan(value: Any, passed: bool) -> None:
    pools = Pools(decided=Choices(frozenset({"left"}), ("scores",)))
    pools.see({"left": np.array(value)}, {"left": np.array([[1.0, 2.0]])})
    assert pools.comparison((0.9, 0.8)).passed is passed
