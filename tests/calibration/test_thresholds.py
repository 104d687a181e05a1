"""All methods alike, and their names."""

from __future__ import annotations

import time

import numpy as np
import pytest

from qdqc.calibration.methods.kl import kl_range
from qdqc.calibration.methods.settings import EMPTY_THRESHOLD
from qdqc.calibration.statistics import Statistics
from qdqc.calibration.thresholds import METHODS, Settings, method_name, method_named
from qdqc.diagnostics import QdqcError
from qdqc.ir.types import Range

BELL = np.random.default_rng(0).standard_normal(200_000).astype(np.float32)


def stats_of(array: np.ndarray) -> Statistics:
    out = Statistics()
    out.update_sample(np.asarray(array, np.float32))
    return out


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize(
    "array",
    [
        np.maximum(BELL, 0),
        BELL,
        -np.abs(BELL),
        np.array([5.0]),
        np.array([2.0, 3.0]),
        np.array([1e-38, -3e-39]),
        np.array([3e38, -1.0]),
        np.append(np.zeros(100_000), 1.0),
        np.linspace(4, 5, 5000),
    ],
    ids=["relu", "bell", "negative", "one", "positive", "tiny", "huge", "rare", "offset"],
)
def test_ranges_hold_zero_and_lie_within_the_observed(method: str, array: np.ndarray) -> None:
    stats = stats_of(array)
    found = METHODS[method](stats, Settings())
    assert found.min <= 0 <= found.max
    assert found.max > found.min
    if stats.min >= 0:
        assert found.min == 0
    if stats.absmax > 1e-30:
        assert stats.min <= found.min or found.min == 0
        assert stats.max >= found.max or found.max == 0
        assert found.threshold <= stats.absmax
        if method != "mse":  # which seeks it apart from the ends
            assert found.threshold == pytest.approx(max(-found.min, found.max))


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("array", [np.zeros(10), np.array([]), np.full(4, 1e-42)])
def test_values_that_are_zero_get_some_range(method: str, array: np.ndarray) -> None:
    found = METHODS[method](stats_of(array), Settings())
    assert found == Range(0, EMPTY_THRESHOLD, EMPTY_THRESHOLD)


def test_methods_by_name() -> None:
    assert method_named("use_KL") is kl_range
    assert method_name("use_max") == "max"
    assert {method_name(f"USE_{m}") for m in METHODS} == set(METHODS)
    with pytest.raises(QdqcError, match="no calibration method 'precentile9999'; did you mean"):
        method_named("precentile9999")


@pytest.mark.parametrize("method", list(METHODS))
def test_a_tensor_takes_milliseconds(method: str) -> None:
    stats, best = stats_of(BELL), np.inf
    for _ in range(3):
        start = time.perf_counter()
        METHODS[method](stats, Settings())
        best = min(best, time.perf_counter() - start)
    assert best < 0.06, "8 ms or less alone on a core"
