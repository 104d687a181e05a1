"""All methods alike, and their names."""

from __future__ import annotations

import re

import numpy as np
import pytest

from qdqc.calibration.methods.extremes import Max, Percentile
from qdqc.calibration.methods.kl import Kl
from qdqc.calibration.methods.method import EMPTY_THRESHOLD, METHODS, Method
from qdqc.calibration.statistics import Statistics
from qdqc.calibration.thresholds import method_named
from qdqc.diagnostics import QdqcError
from qdqc.ir.types import Range

BELL = np.random.default_rng(0).standard_normal(200_000).astype(np.float32)


def stats_of(array: np.ndarray) -> Statistics:
    out = Statistics()
    out.update_sample(np.asarray(array, np.float32))
    return out


@pytest.mark.parametrize("method", METHODS.names())
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
    found = METHODS[method].range(stats)
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


@pytest.mark.parametrize("method", METHODS.names())
@pytest.mark.parametrize("array", [np.zeros(10), np.array([]), np.full(4, 1e-42)])
def test_values_that_are_zero_get_some_range(method: str, array: np.ndarray) -> None:
    found = METHODS[method].range(stats_of(array))
    assert found == Range(0, EMPTY_THRESHOLD, EMPTY_THRESHOLD)


def test_methods_by_name() -> None:
    assert method_named("use_KL") == Kl()
    assert method_named("use_max").name == "max"
    assert [method_named(f"USE_{m}").name for m in METHODS.names()] == METHODS.names()
    with pytest.raises(QdqcError, match="calibration method 'precentile9999'; did you mean 'perc"):
        method_named("Precentile9999")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("percentile9999{percentile=99.9}", Percentile(percentile=99.9)),
        ("Percentile9999", Percentile(percentile=98)),
        ("use_kl{bins=512}", Kl(bins=512)),
        ("kl", Kl(bins=256)),
        ("max", Max()),
    ],
)
def test_options_in_braces_stand_over_those_of_the_caller(text: str, expected: Method) -> None:
    found = method_named(text, bins=256, percentile=98)
    assert found == expected
    assert method_named(found.spelling) == expected


def test_a_method_is_spelt_with_what_is_not_default() -> None:
    assert Kl().spelling == "kl"
    assert Kl(bins=512).spelling == "kl{bins=512}"
    assert Percentile(percentile=99.999999).spelling == "percentile9999{percentile=99.999999}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' does not name one"),
        ("kl,max", "'kl,max' does not name one"),
        ("@kl", "'@kl' does not name one"),
        ("max{bins=512}", "calibration method 'max' has no 'bins'"),
        ("kl{bins=a}", "'bins' of calibration method 'kl' is an integer, not \"a\""),
        ("kl{bins=64}", "64 histogram bins are less than 128"),
        ("percentile9999{percentile=50}", "percentile 50 is not a percentage"),
        ("percentile9999{percentile=nan}", "percentile nan is not a percentage"),
    ],
)
def test_what_names_no_method(text: str, message: str) -> None:
    with pytest.raises(QdqcError, match=re.escape(message)):
        method_named(text)
