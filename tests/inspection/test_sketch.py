"""Elements kept for pictures."""

from __future__ import annotations

import numpy as np

from qdqc.inspection.sketch import Sketches


def test_the_same_elements_of_both_runs() -> None:
    sketches = Sketches(values=1, samples=2)
    x = np.random.default_rng(0).standard_normal((50, 1000)).astype(np.float32)
    for part in (x[:25], x[25:]):
        sketches.see("x", part, part * 2)
    exact, found = sketches.by_name["x"].elements()
    assert exact.size == 2 * 2048
    np.testing.assert_array_equal(found, exact * 2)
    assert set(exact.tolist()) <= set(x.ravel().tolist())
    assert exact[0] == x[0, 0]
    assert exact[-1] == x[-1, -1]


def test_memory_is_bound_whatever_the_model() -> None:
    sketches = Sketches(values=100_000, samples=100)
    sketches.see("x", np.zeros(10_000), np.zeros(10_000))
    assert sketches.by_name["x"].elements()[0].size == 32


def test_shapes_that_differ_and_numbers_that_are_none_are_left_out() -> None:
    sketches = Sketches(1, 1)
    sketches.see("a", np.zeros(3), np.zeros(4))
    sketches.see("b", np.array([1.0, np.nan, 3.0]), np.array([1.0, 2.0, np.inf]))
    assert list(sketches.by_name) == ["b"]
    assert [a.tolist() for a in sketches.by_name["b"].elements()] == [[1.0], [1.0]]


def test_ranges_of_the_methods() -> None:
    x = np.random.default_rng(0).standard_normal(2000).astype(np.float32)
    small, large = Sketches(10, 1), Sketches(301, 1)
    for sketches in (small, large):
        sketches.see("x", x, x)
    ranges = small.thresholds("x")
    assert {"kl", "mse", "max", "octav"} <= ranges.keys()
    assert ranges["max"] == (x.min(), x.max())
    assert ranges["mse"][1] <= x.max()
    assert large.thresholds("x") == {}, "it would take too long"
