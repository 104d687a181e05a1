from __future__ import annotations

import math

import numpy as np
import pytest
from fidelity import Interval, agreement, bootstrap, cosine, sqnr_db, top1

from qdqc.runtime.comparison import compare


def test_top1_is_one_for_a_hit() -> None:
    logits = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    np.testing.assert_array_equal(top1(logits, [1, 0, 0]), [1.0, 1.0, 0.0])


def test_agreement_is_a_share_of_the_views_of_each_photo() -> None:
    reference = np.zeros((2, 4, 3))
    reference[..., 1] = 1.0
    found = reference.copy()
    found[1, 0, 2] = 5.0
    np.testing.assert_allclose(agreement(found, reference), [1.0, 0.75])


def test_sqnr_counts_decibels_of_the_reference_over_the_error() -> None:
    reference = np.array([[3.0, 4.0], [3.0, 4.0]])
    found = sqnr_db(reference + np.array([[0.3, 0.4], [0.0, 0.0]]), reference)
    assert found[0] == pytest.approx(20.0)
    assert math.isinf(found[1])


def test_cosine_of_parallel_opposite_and_orthogonal() -> None:
    reference = np.array([[1.0, 0.0]] * 3)
    found = cosine(np.array([[2.0, 0.0], [-1.0, 0.0], [0.0, 3.0]]), reference)
    np.testing.assert_allclose(found, [1.0, -1.0, 0.0])


def test_both_measures_equal_those_of_the_commands() -> None:
    rng = np.random.default_rng(0)
    exact = rng.standard_normal(50)
    found = exact + 0.1 * rng.standard_normal(50)
    assert cosine(found, exact) == pytest.approx(compare.cosine(found, exact))
    assert sqnr_db(found, exact) == pytest.approx(compare.sqnr(found, exact))


def test_the_interval_has_the_width_of_the_normal_approximation() -> None:
    hits = np.array([1.0] * 160 + [0.0] * 40)
    found = bootstrap(hits)
    deviation = math.sqrt(0.8 * 0.2 / 200)
    assert found.mean == pytest.approx(0.8)
    assert found.low == pytest.approx(0.8 - 1.96 * deviation, abs=0.006)
    assert found.high == pytest.approx(0.8 + 1.96 * deviation, abs=0.006)


def test_equal_photos_leave_no_interval_and_draws_repeat() -> None:
    assert bootstrap([0.5] * 9, draws=50) == Interval(0.5, 0.5, 0.5)
    values = np.random.default_rng(1).random(30)
    assert bootstrap(values, draws=100) == bootstrap(values, draws=100)
    assert Interval(0.98, 0.97, 0.99).text(2) == "0.98 [0.97, 0.99]"
