"""Rounding by second moments: against all choices, against nearest, and its laws."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdqc.tuning.rounding import (
    Grid,
    damped,
    rounded_in_order,
    rounded_to_nearest,
    settled,
    squared_error,
)

Doubles = npt.NDArray[np.float64]


def moments(groups: int, depth: int, seed: int, columns: int = 0) -> Doubles:
    """[G,K,K] of columns that depend on each other, as many as they have numbers or so."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(groups, columns or depth + 2, max(1, depth // 2)))
    drawn = mixed @ rng.normal(size=(groups, max(1, depth // 2), depth))
    drawn += 0.1 * rng.normal(size=drawn.shape)
    return drawn.transpose(0, 2, 1) @ drawn / drawn.shape[1]


def rows_of(groups: int, outputs: int, depth: int, seed: int) -> Doubles:
    return np.random.default_rng(seed + 100).normal(size=(groups, outputs, depth))


def error(whole: Doubles, rows: Doubles, grid: Grid, second: Doubles) -> Doubles:
    """By loops."""
    out = np.zeros(rows.shape[:2])
    step = np.broadcast_to(grid.step, rows.shape)
    for g, o in np.ndindex(*out.shape):
        lost = whole[g, o] * step[g, o] - rows[g, o]
        out[g, o] = lost @ second[g] @ lost
    return out


def test_squared_error_is_that_of_the_outputs() -> None:
    rng = np.random.default_rng(0)
    columns, lost = rng.normal(size=(40, 5)), rng.normal(size=(1, 3, 5))
    expected = np.square(columns @ lost[0].T).mean(axis=0)
    found = squared_error(lost, (columns.T @ columns / 40)[None])
    np.testing.assert_allclose(found[0], expected)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 80), st.integers(0, 10**6))
def test_settling_never_errs_more(groups: int, outputs: int, depth: int, seed: int) -> None:
    """Over several blocks of columns, from any start; and what it gives lies on the grid."""
    rows, second = rows_of(groups, outputs, depth, seed), damped(moments(groups, depth, seed), 0.01)
    grid = Grid(np.full((groups, outputs, 1), 0.2), -7, 7)
    start = rounded_to_nearest(rows, grid)
    before = error(start, rows, grid, second)
    for sweeps in (1, 2):
        found = settled(start, rows, grid, second, sweeps)
        after = error(found, rows, grid, second)
        assert (after <= before * (1 + 1e-9) + 1e-12).all()
        assert (found == np.rint(found)).all()
        assert np.abs(found).max() <= 7
        before = after


@pytest.mark.parametrize("seed", range(5))
def test_no_single_number_can_be_bettered_once_it_is_settled(seed: int) -> None:
    rows, second = rows_of(1, 2, 6, seed), damped(moments(1, 6, seed), 0.01)
    grid = Grid(np.full((1, 2, 1), 0.3), -4, 4)
    found = settled(rounded_to_nearest(rows, grid), rows, grid, second, 50)
    best = error(found, rows, grid, second)
    for index in range(6):
        for other in range(-4, 5):
            changed = found.copy()
            changed[:, :, index] = other
            assert (error(changed, rows, grid, second) >= best - 1e-12).all()


@pytest.mark.parametrize("seed", range(8))
def test_order_and_settling_come_near_the_best_of_all_choices(seed: int) -> None:
    rows, second = rows_of(1, 1, 5, seed), damped(moments(1, 5, seed), 0.01)
    grid = Grid(np.array([[[0.7]]]), -2, 2)
    every = np.array(list(itertools.product(range(-2, 3), repeat=5)), np.float64)
    lost = every * 0.7 - rows[0]
    best = np.einsum("nk,kl,nl->n", lost, second[0], lost).min()
    found = settled(rounded_in_order(rows, grid, second), rows, grid, second, 3)
    nearest = rounded_to_nearest(rows, grid)
    reached = error(found, rows, grid, second)[0, 0]
    assert best - 1e-12 <= reached
    assert reached <= error(nearest, rows, grid, second)[0, 0] + 1e-12


@pytest.mark.parametrize("depth", [9, 64, 65, 200])
def test_rounding_in_order_errs_far_less_on_dependent_columns(depth: int) -> None:
    rows, second = rows_of(2, 8, depth, 1), damped(moments(2, depth, 1, 4 * depth), 0.01)
    grid = Grid(np.abs(rows).max(axis=2, keepdims=True) / 7, -7, 7)
    nearest, ordered = rounded_to_nearest(rows, grid), rounded_in_order(rows, grid, second)
    ratio = error(ordered, rows, grid, second).sum() / error(nearest, rows, grid, second).sum()
    assert ratio < 0.7


def reference(row: Doubles, step: float, limit: int, second: Doubles) -> Doubles:
    """GPTQ of one row by its definition: after each column the rest moves to its best, by the
    inverse of what is left of H.
    """
    order = np.argsort(-np.diagonal(second), kind="stable")
    held, out = row[order].copy(), np.zeros(len(row))
    h = second[np.ix_(order, order)]
    for j in range(len(row)):
        inverse = np.linalg.inv(h[j:, j:])
        out[j] = np.clip(np.rint(held[j] / step), -limit, limit)
        held[j:] -= (held[j] - out[j] * step) / inverse[0, 0] * inverse[:, 0]
    found = np.zeros(len(row))
    found[order] = out
    return found


@pytest.mark.parametrize("depth", [1, 7, 70, 130])
def test_rounding_in_order_is_gptq(depth: int) -> None:
    rows, second = rows_of(1, 3, depth, 2), damped(moments(1, depth, 2), 0.02)
    grid = Grid(np.full((1, 3, 1), 0.25), -9, 9)
    found = rounded_in_order(rows, grid, second)
    expected = [reference(row, 0.25, 9, second[0]) for row in rows[0]]
    np.testing.assert_array_equal(found[0], expected)


def test_independent_columns_are_rounded_to_nearest() -> None:
    rows = rows_of(1, 4, 90, 3)
    second = np.diag(np.random.default_rng(0).uniform(0.1, 2, 90))[None]
    grid = Grid(np.full((1, 1, 1), 0.1), -127, 127)
    nearest = rounded_to_nearest(rows, grid)
    np.testing.assert_array_equal(rounded_in_order(rows, grid, second), nearest)
    np.testing.assert_array_equal(settled(nearest, rows, grid, second, 2), nearest)


def test_a_grid_may_differ_from_number_to_number() -> None:
    """Blocks have steps and ends of their own, as weights of 4 bits with zero points."""
    rng = np.random.default_rng(4)
    rows, second = rows_of(1, 3, 70, 4), damped(moments(1, 70, 4, 300), 0.01)
    zero = rng.integers(0, 16, (1, 3, 70))
    grid = Grid(rng.uniform(0.1, 0.4, (1, 3, 70)), -zero, 15 - zero)
    for found in (
        rounded_to_nearest(rows, grid),
        rounded_in_order(rows, grid, second),
        settled(rounded_to_nearest(rows, grid), rows, grid, second, 2),
    ):
        assert (found >= -zero).all()
        assert (found <= 15 - zero).all()


def test_dead_columns_do_no_harm() -> None:
    """Columns that are always zero, all of them even, leave a singular H."""
    rows, second = rows_of(1, 2, 4, 5), np.zeros((1, 4, 4))
    second[0, 0, 0] = 1.0
    grid = Grid(np.full((1, 2, 1), 0.1), -127, 127)
    for held in (damped(second, 0.01), damped(np.zeros((1, 4, 4)), 0.01)):
        found = settled(rounded_in_order(rows, grid, held), rows, grid, held, 2)
        np.testing.assert_array_equal(found, rounded_to_nearest(rows, grid))


def test_damping_adds_to_the_diagonal_of_a_copy() -> None:
    second = np.array([[[2.0, 1.0], [1.0, 4.0]]])
    np.testing.assert_allclose(damped(second, 0.1), [[[2.3, 1.0], [1.0, 4.3]]])
    np.testing.assert_array_equal(second, [[[2.0, 1.0], [1.0, 4.0]]])
