"""Times of two models side by side, in words and in JSON, from times that are made up."""

from __future__ import annotations

import json

import numpy as np
import pytest

from qdqc.report.benchmark_text import benchmark_entries, render_benchmark
from qdqc.runtime.timing.latency import OpTime

TIMES = {
    "float": np.array([0.004, 0.006, 0.005, 0.010, 0.005]),
    "deployed": np.array([0.002, 0.003, 0.0025, 0.005, 0.002]),
}
OPS = {
    "float": [OpTime("Conv", 3, 0.004), OpTime("Gemm", 1, 0.001)],
    "deployed": [OpTime("QLinearConv", 3, 0.002)],
}
SIZES = {"float": 4_000, "deployed": 1_000}


def test_the_text_has_both_models_the_speed_up_and_the_ops() -> None:
    assert render_benchmark(TIMES, OPS, SIZES).splitlines() == [
        "one thread, 5 interleaved rounds, median [quartiles]",
        "  float     5.000 [5.000, 6.000] ms, 4,000 bytes",
        "  deployed  2.500 [2.000, 3.000] ms, 1,000 bytes",
        "  2.00 [2.00, 2.00] times as fast, 0.250 of the bytes",
        "  ms by op, float: Conv x3 4.000, Gemm x1 1.000",
        "  ms by op, deployed: QLinearConv x3 2.000",
    ]


def test_entries_are_milliseconds_by_numpys_percentiles() -> None:
    found = benchmark_entries(TIMES, OPS)
    json.dumps(found)
    for name, seconds in TIMES.items():
        low, median, high = np.percentile(seconds * 1e3, [25, 50, 75])
        assert found[name] == pytest.approx({"low": low, "median": median, "high": high})
    within = TIMES["float"] / TIMES["deployed"]
    assert found["speedup"]["median"] == pytest.approx(0.005 / 0.0025)
    assert found["speedup"]["high"] == pytest.approx(np.percentile(within, 75))
    assert found["rounds"] == 5
    assert found["ops"]["deployed"] == [{"op": "QLinearConv", "nodes": 3, "ms": 2.0}]


def test_a_model_of_no_size_has_no_share() -> None:
    text = render_benchmark(TIMES, OPS, {"float": 0, "deployed": 10})
    assert "1.000 of the bytes" in text
