"""GPTQ beside the same thing done straight: the inverse is taken anew for what is left.

The paper derives its triangular factor from this: after column j is rounded, its row and column
are eliminated from the inverse of H, and the columns behind it take up the error.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdqc.tuning.rounding import Grid, best_reach, damped, rounded_in_order, squared_error

Doubles = npt.NDArray[np.float64]


def straight(row: Doubles, step: Doubles, low: Doubles, high: Doubles, second: Doubles) -> Doubles:
    """One row [K], column by column in the order of the falling diagonal."""
    left = list(np.argsort(-np.diagonal(second), kind="stable"))
    held, whole = row.copy(), np.zeros(len(row))
    while left:
        inverse = np.linalg.inv(second[np.ix_(left, left)])
        j = left[0]
        whole[j] = np.clip(np.rint(held[j] / step[j]), low[j], high[j])
        error = (held[j] - whole[j] * step[j]) / inverse[0, 0]
        held[left] -= error * inverse[0]
        left = left[1:]
    return whole


def problem(groups: int, outputs: int, depth: int, seed: int) -> tuple[Doubles, Doubles]:
    """Rows [G,O,K], and damped second moments [G,K,K] of columns that depend on each other."""
    rng = np.random.default_rng(seed)
    sources = rng.normal(size=(groups, 3 * depth, max(1, depth // 3)))
    columns = sources @ rng.normal(size=(groups, max(1, depth // 3), depth))
    columns += 0.3 * rng.normal(size=columns.shape) * np.exp(rng.normal(size=(groups, 1, depth)))
    second = columns.transpose(0, 2, 1) @ columns / columns.shape[1]
    return rng.normal(size=(groups, outputs, depth)), damped(second, 0.01)


def by_rows(rows: Doubles, grid: Grid, second: Doubles) -> Doubles:
    """All rows done straight."""
    every = [np.broadcast_to(np.asarray(a, float), rows.shape) for a in
             (grid.step, grid.low, grid.high)]  # fmt: skip
    out = np.zeros(rows.shape)
    for g, o in np.ndindex(*rows.shape[:2]):
        out[g, o] = straight(rows[g, o], *(a[g, o] for a in every), second[g])
    return out


def assert_same(rows: Doubles, grid: Grid, second: Doubles) -> None:
    """Equal, save where a number lay so near the middle of two that rounding errors decide."""
    found, expected = rounded_in_order(rows, grid, second), by_rows(rows, grid, second)
    same = (found == expected).all(axis=2)
    if not same.all():  # one tie moves all behind it: the errors must still be alike
        a, b = (squared_error(rows - w * grid.step, second)[~same] for w in (found, expected))
        np.testing.assert_allclose(a, b, rtol=0.5)
    assert same.mean() > 0.9


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 20), st.integers(0, 10**6))
def test_it_is_the_straight_way(groups: int, outputs: int, depth: int, seed: int) -> None:
    rows, second = problem(groups, outputs, depth, seed)
    found = rounded_in_order(rows, Grid(np.full((groups, outputs, 1), 0.25), -7, 7), second)
    expected = by_rows(rows, Grid(np.full((groups, outputs, 1), 0.25), -7, 7), second)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("depth", [63, 64, 65, 130])
def test_errors_pass_from_block_to_block(depth: int) -> None:
    rows, second = problem(1, 3, depth, depth)
    assert_same(rows, Grid(np.full((1, 3, 1), 0.3), -8, 8), second)


def test_each_column_has_a_grid_of_its_own() -> None:
    """As weights of 4 bits in blocks have: steps and bounds that differ along the row."""
    rows, second = problem(1, 4, 24, 7)
    rng = np.random.default_rng(3)
    blocks = np.repeat(rng.uniform(0.1, 0.4, (1, 4, 3)), 8, axis=2)
    zero = np.repeat(rng.integers(3, 12, (1, 4, 3)), 8, axis=2)
    assert_same(rows, Grid(blocks, -zero, 15 - zero), second)


def test_what_saturates_is_made_up_for_as_well() -> None:
    """Two inputs that are the same: the second takes what the bound cuts off the first."""
    second = damped(np.ones((1, 2, 2)), 1e-6)
    second[0, 0, 0] += 1e-3  # so that the first comes first
    found = rounded_in_order(np.array([[[5.0, 1.0]]]), Grid(np.ones((1, 1, 1)), -4, 4), second)
    np.testing.assert_array_equal(found, [[[4, 2]]])


def test_independent_inputs_are_rounded_to_nearest() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2, 5, 40))
    second = np.stack([np.diag(rng.uniform(0.5, 2, 40)) for _ in range(2)])
    grid = Grid(np.full((2, 5, 1), 0.1), -127, 127)
    np.testing.assert_array_equal(rounded_in_order(rows, grid, second), np.rint(rows / 0.1))


def reaches(rows: Doubles, second: Doubles, limit: int, *, shared: bool) -> list[list[float]]:
    """The error of each row at each reach, by loops."""
    found: list[list[float]] = []
    top = np.abs(rows).max(axis=2)
    if shared:
        top = np.full_like(top, top.max())
    for share in np.linspace(0.3, 1, 15):
        errors = []
        for g, o in np.ndindex(*rows.shape[:2]):
            step = share * top[g, o] / limit
            lost = np.clip(np.rint(rows[g, o] / step), -limit, limit) * step - rows[g, o]
            errors.append(float(lost @ second[g] @ lost))
        found.append(errors)
    return found


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(2, 20), st.integers(0, 10**6),
       st.sampled_from([7, 127]), st.booleans())  # fmt: skip
def test_the_reach_that_errs_least(
    groups: int, outputs: int, depth: int, seed: int, limit: int, shared: bool
) -> None:
    rows, second = problem(groups, outputs, depth, seed)
    top: Any = np.abs(rows).max(axis=2, keepdims=True)
    if shared:
        top = np.full_like(top, top.max())
    found = best_reach(rows, top, second, limit, shared=shared)
    errors = np.array(reaches(rows, second, limit, shared=shared))
    if shared:
        errors = np.repeat(errors.sum(axis=1, keepdims=True), groups * outputs, axis=1)
        assert len(np.unique(found)) == 1
    place = np.round((found.reshape(-1) - 0.3) / 0.05).astype(int)
    chosen = errors[place, np.arange(groups * outputs)]
    np.testing.assert_allclose(chosen, errors.min(axis=0), rtol=1e-3)


def test_of_equal_reaches_the_widest() -> None:
    """Zeros err nowhere: they keep all of their reach."""
    zeros = np.zeros((1, 2, 3))
    found = best_reach(zeros, zeros[:, :, :1], np.eye(3)[None], 127, shared=False)
    np.testing.assert_array_equal(found, np.ones((1, 2, 1)))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(2, 30), st.integers(0, 10**6))
def test_much_damping_leaves_rounding_to_nearest(groups: int, depth: int, seed: int) -> None:
    """Between what the data say and nothing: the less they are trusted, the fewer move."""
    rows, second = problem(groups, 4, depth, seed)
    grid = Grid(np.full((groups, 4, 1), 0.2), -31, 31)
    nearest = np.clip(np.rint(rows / 0.2), -31, 31)
    moved = [
        int((rounded_in_order(rows, grid, damped(second, damping)) != nearest).sum())
        for damping in (0.01, 1e8)
    ]
    assert moved[1] == 0 <= moved[0]
