"""The list of values whose range is made by few numbers, against plain numpy."""

from __future__ import annotations

import numpy as np
import pytest

from qdqc.calibration.outliers import outlier_driven
from qdqc.calibration.statistics import Statistics


def of(array: np.ndarray) -> Statistics:
    found = Statistics()
    found.update(array.astype(np.float32))
    return found


def normal(count: int = 100_000) -> np.ndarray:
    return np.random.default_rng(0).normal(size=count)


def test_ratio_and_kurtosis() -> None:
    array = normal()
    array[7] = 90.0
    (found,) = outlier_driven({"x": of(array)})
    bulk = np.abs(np.quantile(array, [0.00005, 0.99995])).max()
    assert found.name == "x"
    assert found.ratio == pytest.approx(90.0 / bulk, rel=0.01)
    centred = array - array.mean()
    assert found.kurtosis == pytest.approx((centred**4).mean() / (centred**2).mean() ** 2, rel=0.01)


def test_the_worst_come_first_and_plain_ones_not_at_all() -> None:
    wild, wilder = normal(), normal()
    wild[0], wilder[0] = 30.0, -300.0
    stats = {"plain": of(normal()), "wild": of(wild), "wilder": of(wilder)}
    assert [o.name for o in outlier_driven(stats)] == ["wilder", "wild"]
    assert [o.name for o in outlier_driven(stats, most=1)] == ["wilder"]
    assert [o.name for o in outlier_driven(stats, bounded=["wilder"])] == ["wild"]


def test_values_that_share_their_statistics_count_once() -> None:
    array = normal()
    array[0] = 50.0
    shared = of(array)
    assert [o.name for o in outlier_driven({"a": shared, "b": shared})] == ["a"]


@pytest.mark.parametrize("array", [np.zeros(10), np.full(10, 3.0), np.zeros(0)])
def test_values_without_extent_are_no_outliers(array: np.ndarray) -> None:
    assert outlier_driven({"x": of(array)}) == []
