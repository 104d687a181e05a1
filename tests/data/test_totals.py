"""Streamed statistics, against numpy on the whole arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qdqc.data.totals import Totals

ARRAYS = hnp.arrays(
    np.float64, st.integers(1, 60), elements=st.floats(-1e6, 1e6, allow_subnormal=False)
)


@given(ARRAYS, st.integers(1, 20), st.integers(1, 5))
def test_pieces_and_parts_say_what_numpy_says(array: np.ndarray, piece: int, parts: int) -> None:
    whole, split = Totals(), Totals(parts)
    for start in range(0, array.size, piece):
        held = array[start : start + piece]
        whole.see(held)
        split.see(held, np.arange(start, start + held.size) % parts)
    for totals, groups in ((whole, [array]), (split, [array[i::parts] for i in range(parts)])):
        for i, x in enumerate(groups):
            assert totals.count[i] == x.size
            if not x.size:
                continue
            assert (totals.low[i], totals.high[i]) == (x.min(), x.max())
            assert totals.zeros[i] == np.count_nonzero(x == 0)
            scale = np.abs(x).max()
            assert totals.mean[i] == pytest.approx(x.mean(), abs=1e-9 * scale + 1e-300)
            assert totals.magnitude[i] == pytest.approx(np.abs(x).mean(), rel=1e-9)
            assert totals.std[i] == pytest.approx(x.std(), abs=1e-9 * scale + 1e-300)


def test_a_large_mean_costs_no_digits() -> None:
    x = 1e9 + np.random.default_rng(0).standard_normal(10_000)
    totals = Totals()
    for part in np.array_split(x, 7):
        totals.see(part)
    assert totals.std[0] == pytest.approx(x.std(), rel=1e-7)
    naive = np.sqrt(abs(np.mean(x**2) - np.mean(x) ** 2))
    assert abs(naive - x.std()) > 1e-3, "sums of squares would not do"


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.bool_, np.float16])
def test_types(dtype: type) -> None:
    totals = Totals()
    totals.see(np.array([[0, 1], [1, 1]], dtype))
    assert (totals.low[0], totals.high[0], totals.mean[0]) == (0, 1, 0.75)
    assert totals.zeros[0] == 1


def test_odd_elements_count_for_themselves() -> None:
    totals = Totals(2)
    totals.see(np.array([np.nan, 1.0, np.inf, -np.inf, 3.0]), np.array([0, 0, 0, 1, 1]))
    assert totals.odd.tolist() == [2, 1]
    assert totals.count.tolist() == [1, 1]
    assert totals.mean.tolist() == [1, 3]
    empty = Totals()
    empty.see(np.zeros(0))
    assert (empty.count[0], empty.std[0]) == (0, 0)
