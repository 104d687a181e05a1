"""Timing side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qdqc.diagnostics import QdqcError
from qdqc.runtime.audit.kernels import optimised_model
from qdqc.runtime.timing.latency import Spread, interleave, op_times, ratio, spread, time_models

Samples = list[dict[str, Any]]


class Machine:
    """A clock that only runs when something is called."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def clock(self) -> float:
        return self.now

    def run(self, name: str, seconds: float) -> None:
        self.calls.append(name)
        self.now += seconds


def test_each_round_runs_everything_once_and_warmup_is_left_out() -> None:
    machine = Machine()
    runs = {"a": lambda: machine.run("a", 0.5), "b": lambda: machine.run("b", 2.0)}
    times = interleave(runs, 20, warmup=2, clock=machine.clock)
    assert list(times) == ["a", "b"]
    np.testing.assert_allclose(times["a"], np.full(20, 0.5))
    np.testing.assert_allclose(times["b"], np.full(20, 2.0))
    rounds = [machine.calls[i : i + 2] for i in range(0, len(machine.calls), 2)]
    assert len(rounds) == 22
    assert all(sorted(names) == ["a", "b"] for names in rounds)
    assert {tuple(names) for names in rounds} == {("a", "b"), ("b", "a")}


def test_slow_first_calls_fall_into_the_warmup() -> None:
    machine = Machine()
    times = interleave(
        {"a": lambda: machine.run("a", 9.0 if len(machine.calls) < 3 else 1.0)},
        5,
        warmup=3,
        clock=machine.clock,
    )
    assert times["a"].max() == pytest.approx(1.0)


def test_repeats_are_counted_as_one_call() -> None:
    machine = Machine()
    times = interleave(
        {"a": lambda: machine.run("a", 0.25)}, 3, repeats=4, warmup=0, clock=machine.clock
    )
    assert len(machine.calls) == 12
    np.testing.assert_allclose(times["a"], [0.25] * 3)


def test_primed_runs_are_warm_each_time() -> None:
    """What ran last is warm, and quick: a run that follows another one is slow."""
    machine = Machine()

    def run(name: str) -> None:
        machine.run(name, 1.0 if machine.calls[-1:] == [name] else 7.0)

    runs = {"a": lambda: run("a"), "b": lambda: run("b")}
    times = interleave(runs, 10, primed=True, clock=machine.clock)
    np.testing.assert_allclose(np.concatenate([times["a"], times["b"]]), 1.0)
    cold = interleave(runs, 10, clock=machine.clock)
    assert max(cold["a"].max(), cold["b"].max()) == pytest.approx(7.0)


def test_spread_is_median_and_quartiles() -> None:
    assert spread([5.0, 1.0, 3.0, 2.0, 4.0]) == Spread(3.0, 2.0, 4.0)
    assert Spread(0.003, 0.002, 0.004).text(scale=1e3, digits=1) == "3.0 [2.0, 4.0]"


def test_ratio_is_of_medians_with_quartiles_within_rounds() -> None:
    below = np.array([1.0, 1.0, 10.0, 1.0, 1.0])
    found = ratio(2 * below, below)
    assert found == Spread(2.0, 2.0, 2.0)
    assert ratio(np.array([1.0, 3.0, 8.0]), np.array([1.0, 1.0, 4.0])) == Spread(3.0, 1.5, 2.5)


def test_timing_of_files(tiny_onnx: Path, samples: Samples) -> None:
    models = {"x": str(tiny_onnx), "y": str(tiny_onnx)}
    found = time_models(models, dict.fromkeys(models, samples[0]), rounds=3)
    assert all(0 < s < 1 for name in "xy" for s in found[name])
    assert found["x"].shape == (3,)
    with pytest.raises(QdqcError, match="no such file"):
        time_models({"x": "none.onnx"}, {"x": {}})


def test_the_profile_holds_every_kernel(tiny_onnx: Path, samples: Samples) -> None:
    found = op_times(str(tiny_onnx), samples[0])
    proto = optimised_model(tiny_onnx)
    assert sum(row.nodes for row in found) >= len(proto.graph.node)
    assert all(0 < row.seconds < 1 for row in found)
    assert [r.seconds for r in found] == sorted((r.seconds for r in found), reverse=True)
    assert not list(Path().glob("profile*"))
