"""The figures of a comparison, held against independent formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdqc.runtime.comparison.compare import (
    Comparison,
    Level,
    Similarity,
    cosine,
    euclidean_similarity,
    sqnr,
)
from qdqc.runtime.comparison.pooled import compare, similarity

NUMBERS = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20)


@given(NUMBERS, st.randoms(use_true_random=False))
def test_figures_by_plain_sums(values: list[float], random: object) -> None:
    a = [float(np.float32(v)) for v in values]
    b = [x + float(np.float32(0.01 * (i % 7 - 3))) for i, x in enumerate(a)]
    norm_a, norm_b = math.sqrt(math.fsum(x * x for x in a)), math.sqrt(math.fsum(x * x for x in b))
    if norm_a > 1e-6 and norm_b > 1e-6:
        dot = math.fsum(x * y for x, y in zip(a, b, strict=True))
        assert cosine(a, b) == pytest.approx(dot / (norm_a * norm_b), abs=1e-9)
    distance = math.sqrt(math.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True)))
    middle = math.sqrt(math.fsum(((x + y) / 2) ** 2 for x, y in zip(a, b, strict=True)))
    assert euclidean_similarity(a, b) == pytest.approx(1 - distance / (middle + 1e-7), rel=1e-9)
    if distance > 1e-6 and norm_b > 1e-6:
        assert sqnr(a, b) == pytest.approx(20 * math.log10(norm_b / distance), abs=1e-6)


def test_zeros() -> None:
    assert cosine([0, 0], [0, 0]) == 1
    assert cosine([0, 0], [1, 0]) == 0
    assert euclidean_similarity([0.0], [0.0]) == 1
    assert sqnr([1.0], [1.0]) == math.inf
    assert sqnr([1.0], [0.0]) == -math.inf


def test_integers_do_not_overflow() -> None:
    a = np.full(4, 200, np.uint8)
    assert cosine(a, a) == pytest.approx(1)
    assert euclidean_similarity(a, np.full(4, 100, np.uint8)) == pytest.approx(1 - 100 / 150)


@pytest.mark.parametrize(
    ("value", "reference", "level"),
    [
        ([1.0, 2.0], [1.0, 2.0], Level.EQUAL),
        ([np.nan], [np.nan], Level.EQUAL),
        ([1.0, 2.0], [1.0005, 2.0], Level.CLOSE),
        ([1.0, 2.0], [1.005, 2.0], Level.SIMILAR),
        ([1.0, 2.0], [1.5, 2.0], Level.NOT_SIMILAR),
        ([1.0, 2.0], [1.0, 2.0, 3.0], Level.NOT_MATCH),
        (["a"], ["a"], Level.EQUAL),
        (["a"], ["b"], Level.NOT_SIMILAR),
        ([1 + 2j], [1 + 2j], Level.EQUAL),
        ([1 + 2j], [1 - 2j], Level.NOT_SIMILAR),
        ([True, False], [True, True], Level.NOT_SIMILAR),
    ],
)
def test_levels(value: list[object], reference: list[object], level: Level) -> None:
    found = similarity("x", np.array(value), np.array(reference))
    assert found.level is level
    assert found.passed == (level not in (Level.NOT_SIMILAR, Level.NOT_MATCH))


NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("value", "reference", "same"),
    [
        ([NAN, 1.0], [NAN, 1.0], True),
        ([INF, 1.0], [INF, 1.0], True),
        ([NAN, 1.0], [0.0, 1.0], False),
        ([0.0, 1.0], [NAN, 1.0], False),
        ([INF, 1.0], [1.0, 1.0], False),
        ([INF, 1.0], [-INF, 1.0], False),
        ([NAN, 1.0], [INF, 1.0], False),
    ],
)
def test_what_is_not_finite_stands_at_the_same_places(
    value: list[float], reference: list[float], *, same: bool
) -> None:
    row = similarity("x", np.array(value), np.array(reference), (-1.0, -1.0))
    assert row.passed == same
    assert (row.level is Level.EQUAL) == same
    if not same:
        assert (row.cos, row.euclid, row.sqnr) == (-1, -1, -math.inf)
        assert row.note == "NaN or infinity at other places"


def test_the_rest_is_compared_on_what_is_finite() -> None:
    row = similarity("x", np.array([NAN] + [1.0] * 20), np.array([NAN] + [1.1] * 20))
    assert row.sqnr == pytest.approx(20 * math.log10(1.1 / 0.1), abs=1e-4)
    assert row.max_abs == pytest.approx(0.1)


def test_only_shared_names_in_the_order_of_the_reference() -> None:
    one = {"a": np.ones(2), "b": np.ones(2), "c": np.zeros(2), "d/x": np.zeros(2)}
    other = {"c": np.ones(2), "z": np.ones(2), "d/x": np.ones(2), "a": np.ones(2)}
    found = compare(one, other)
    assert [r.name for r in found.rows] == ["c", "d/x", "a"]
    assert not found.passed
    assert found.first_failure is not None
    assert found.first_failure.name == "c"
    assert compare(one, other, excepts=["c", "d/*"]).passed


def test_the_worst_come_first() -> None:
    rows = [Similarity(str(i), 1.0, i / 10, 0.0, Level.SIMILAR) for i in (5, 3, 9, 1, 7, 8)]
    assert [r.name for r in Comparison(tuple(rows), (0.9, 0.9)).worst()] == list("13578")
