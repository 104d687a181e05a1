"""Values are held within a budget, and are those of the float model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_nets import attention, branches, residual, samples_of

from qdqc.ir.graph import Module
from qdqc.runtime.sessions.session import Runner
from qdqc.runtime.sessions.shared_weights import Weights
from qdqc.search.trials.kept import Kept
from qdqc.search.trials.spread import Hands

NET = residual()
SIZES = {"a": 4 * 8 * 64, "b": 4 * 8 * 64, "c": 4 * 8 * 64, "s": 4 * 8 * 64, "d": 4 * 8 * 64}
SIZES |= {"p": 4 * 8, "f": 4 * 8, "y": 4 * 5}
"""Bytes of a sample's value, by hand: 8 channels of 8 x 8 float32, then 8 and 5 numbers."""


def kept(module: Module, samples: list[Any], needs: list[list[str]], budget: int) -> Kept:
    return Kept(module, samples, needs, weights=Weights(), opset=17, budget=budget)


def runs_of(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The names that each run of the float model is asked for, as they come."""
    asked: list[list[str]] = []
    held = Kept._run

    def run(self: Kept, names: list[str]) -> Any:
        asked.append(names)
        return held(self, names)

    monkeypatch.setattr(Kept, "_run", run)
    return asked


@pytest.mark.parametrize("make", [residual, branches, attention])
def test_values_are_those_of_the_float_model(make: Any) -> None:
    module = make()
    samples = samples_of(module, 3)
    names = [r.name for n in module.graph.nodes() for r in n.present_results]
    plain = Runner(module, names, optimise="off", threads=1)
    found = kept(module, samples, [["x", n] for n in names], 1 << 20)
    for number, name in enumerate(names):
        for values, sample in zip(found.of(number), samples, strict=True):
            np.testing.assert_array_equal(values["x"], sample["x"], "inputs are at hand")
            np.testing.assert_allclose(values[name], plain.run(sample)[name], atol=1e-4, rtol=1e-4)


@given(
    st.lists(st.lists(st.sampled_from("abcsdpfy"), unique=True, max_size=3), min_size=1),
    st.integers(1, 8 * 8 * 64 * 4),
    st.integers(1, 4),
)
def test_a_window_fits_into_the_budget_or_holds_one_layer(
    needs: list[list[str]], budget: int, count: int
) -> None:
    found = kept(NET, samples_of(NET, count), needs, budget)
    windows = found._windows
    assert windows == sorted(windows), "layers come in order"
    assert set(windows) == set(range(windows[-1] + 1))
    for window in set(windows):
        members = [set(n) for n, w in zip(needs, windows, strict=True) if w == window]
        size = count * sum(SIZES[n] for n in set().union(*members))
        distinct = {frozenset(m) for m in members if m}
        assert size <= budget or len(distinct) <= 1


def test_layers_of_a_window_share_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = runs_of(monkeypatch)
    needs = [["a"], ["a", "b"], ["c"], ["c"], ["d"]]
    found = kept(NET, samples_of(NET, 2), needs, 2 * 2 * SIZES["a"])
    for number in range(len(needs)):
        assert set(needs[number]) <= set(found.of(number)[0])
    assert asked == [["a", "b"], ["c", "d"]], "two values at a time"


def test_one_value_more_than_the_budget_is_held_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = runs_of(monkeypatch)
    found = kept(NET, samples_of(NET, 2), [["a"], ["b"], ["p"]], 1)
    for number, name in enumerate("abp"):
        assert name in found.of(number)[1]
        assert [n for n in found.of(number)[1] if n in SIZES] == [name], "the others are gone"
    assert asked == [["a"], ["b"], ["p"]]


def test_layers_at_the_inputs_need_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = runs_of(monkeypatch)
    samples = samples_of(NET, 2)
    found = kept(NET, samples, [["x"], []], 1)
    assert found.of(0) == samples
    assert found.of(1) == samples
    assert asked == [[]]


@pytest.mark.parametrize("hands", [Hands(threads=3), Hands(workers=2)])
def test_who_runs_it_changes_no_bit(hands: Hands) -> None:
    samples, needs = samples_of(NET, 5), [["a", "d"], ["y"]]
    alone = kept(NET, samples, needs, 1 << 20)
    shared = Kept(NET, samples, needs, weights=Weights(), opset=17, hands=hands, budget=1 << 20)
    for number in range(2):
        for one, other in zip(alone.of(number), shared.of(number), strict=True):
            for name in needs[number]:
                np.testing.assert_array_equal(one[name], other[name])
