"""The walk, accuracy control and the front, on models that are scored by hand."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from itertools import combinations
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_nets import attention, branches, residual, samples_of, table_of

from qdqc.diagnostics import QdqcError
from qdqc.ir.graph import Module
from qdqc.runtime.comparison.compare import cosine
from qdqc.runtime.sessions.session import Runner
from qdqc.search.costs.node_costs import Costs, measure_costs, seconds_of
from qdqc.search.strategies.accuracy import control_accuracy
from qdqc.search.strategies.mixes import Mixes
from qdqc.search.strategies.pareto import Point, choose_point, front, knapsack, measure_front
from qdqc.search.strategies.regions import between, with_ancestors, with_descendants
from qdqc.search.strategies.walk import Step, layer_cosines, loss_table, walk
from qdqc.search.trials.journal import Journal
from qdqc.search.trials.mixed_models import MixedModels
from qdqc.search.trials.objective import Likeness
from qdqc.search.trials.trials import Trials


def mixes_of(module: Module, goal: float = 2.0, count: int = 6) -> Mixes:
    samples = samples_of(module, count)
    names = [v.name for v in module.graph.outputs]
    like = Likeness({n: 1 / len(names) for n in names})
    table = table_of(module, samples, 0.9)
    trials = Trials(MixedModels(module), table, samples, like)
    return Mixes(trials, table, Journal(None, ""), goal)


class Made:
    """Mixes whose scores are a sum of gains, so that what a strategy does can be told."""

    def __init__(self, gains: dict[str, float], goal: float, pairs: Any = None) -> None:
        self.gains, self.goal = gains, goal
        self.pairs = pairs or {}
        layers = [SimpleNamespace(name=n, values=()) for n in gains]
        self.trials: Any = SimpleNamespace(
            layers=SimpleNamespace(integer=layers, moved_with=self._moved), samples=[None] * 4
        )
        self.asked: list[frozenset[str]] = []

    def _moved(self, floats: frozenset[str]) -> frozenset[str]:
        return floats | {self.pairs[n] for n in floats if n in self.pairs}

    def score(self, floats: Any = ()) -> float:
        self.asked.append(frozenset(floats))
        return sum(self.gains[n] for n in floats)

    def reaches(self, floats: Any) -> bool:
        return self.score(floats) >= self.goal


def test_cosines_of_layers_are_those_of_the_two_models() -> None:
    mixes = mixes_of(residual())
    found = layer_cosines(mixes.trials, mixes.table)
    assert list(found) == list("abcsdpy"), "f only moves elements"
    lowered = Runner(mixes.trials.models.lowered(mixes.table), ["c"], threads=1)
    plain = Runner(mixes.trials.models.module, ["c"], threads=1)
    near = [cosine(lowered.run(s)["c"], plain.run(s)["c"]) for s in mixes.trials.samples]
    assert found["c"] == pytest.approx(float(np.mean(near)), abs=1e-12)


def test_the_walk_takes_layers_with_their_readers_and_takes_back_what_is_worse() -> None:
    mixes = mixes_of(residual())
    steps: list[Step] = []
    walk(mixes, layer_cosines(mixes.trials, mixes.table), 1.0, steps.append)
    assert steps
    score, floats = mixes.score(), frozenset[str]()
    for step in steps:
        readers = {u.name for v in step.layer.values for u in v.users} & set("abcsdpfy")
        assert step.floats == floats | {step.layer.name} | readers
        assert step.kept == (step.score > score)
        if step.kept:
            score, floats = step.score, step.floats
    assert mixes.best.score >= score


def test_the_walk_stops_at_its_goal_and_leaves_good_layers_alone() -> None:
    mixes = mixes_of(residual())
    walk(mixes, dict.fromkeys("abcsdpy", 0.9), 0.5)
    assert len(mixes.verified) == 1, "no layer is below the least cosine"
    easy = mixes_of(residual(), goal=0.0)
    walk(easy, dict.fromkeys("abcsdpy", 0.9), 1.0)
    assert len(easy.verified) == 1, "INT8 is good enough"


def test_the_loss_table_is_that_of_tpu_mlir() -> None:
    text = loss_table({"a": 0.5, "b": 0.25}, "ort-cpu", "F32")
    lines = text.splitlines()
    assert lines[:2] == ["# chip: ort-cpu  mix_mode: F32", "###"]
    assert lines[2] == f"No.0   : Layer: {'b':<50}\t\t\tCos: 0.250000"
    assert lines[3].endswith("Cos: 0.500000")


def test_accuracy_control_takes_the_best_groups_back() -> None:
    made: Any = Made({"a": 0.1, "b": 0.5, "c": 0.3, "d": -0.2}, goal=0.8)
    done = control_accuracy(made)
    assert [sorted(step.group) for step in done] == [["b"], ["c"]]
    assert done[-1].score == pytest.approx(0.8)
    assert all(step.kept for step in done)


def test_accuracy_control_undoes_what_does_not_help_and_ranks_anew() -> None:
    made: Any = Made({"a": 0.1, "b": 0.5, "c": -0.3}, goal=5.0)
    done = control_accuracy(made)
    assert [(sorted(s.group), s.kept) for s in done] == [
        (["b"], True),
        (["a"], True),
        (["c"], False),
    ]
    made = Made({"a": 0.1, "b": 0.2}, goal=5.0)
    assert control_accuracy(made, iterations=1)[0].group == {"b"}
    made = Made({"a": 0.1}, goal=0.0)
    assert control_accuracy(made) == []


def test_groups_that_leave_together_are_taken_together() -> None:
    made: Any = Made({"a": 0.1, "b": 0.5, "c": 0.3}, goal=0.4, pairs={"a": "c"})
    done = control_accuracy(made)
    assert [sorted(s.group) for s in done] == [["b"]]
    made = Made({"a": 0.2, "b": 0.1, "c": 0.3}, goal=0.5, pairs={"a": "c"})
    assert [sorted(s.group) for s in control_accuracy(made)] == [["a", "c"]]


@pytest.mark.parametrize("ranked", [2, 300])
def test_accuracy_control_on_a_network(ranked: int) -> None:
    mixes = mixes_of(residual())
    mixes.goal = mixes.score({"a", "d"})
    done = control_accuracy(mixes, ranked=ranked)
    assert mixes.best.score >= mixes.goal or len(done) == 8
    for step in done:
        assert step.group <= set("abcsdpfy")


NAMES = "abcdefg"
NUMBERS = st.lists(st.floats(0, 10), min_size=len(NAMES), max_size=len(NAMES))


@given(NUMBERS, NUMBERS, st.floats(0.1, 30))
def test_the_knapsack_is_as_good_as_any_set(
    gains: list[float], prices: list[float], budget: float
) -> None:
    gain, price = dict(zip(NAMES, gains, strict=True)), dict(zip(NAMES, prices, strict=True))
    bins = 400
    found = knapsack(gain, price, budget, bins)
    assert sum(price[n] for n in found) <= budget + 1e-9
    tight = budget * (1 - len(NAMES) / bins)  # what rounding up may take away
    best = max(
        sum(gain[n] for n in chosen)
        for size in range(len(NAMES) + 1)
        for chosen in combinations(NAMES, size)
        if sum(price[n] for n in chosen) <= tight
    )
    assert sum(gain[n] for n in found) >= best - 1e-9


def test_what_is_free_is_taken_and_what_harms_is_not() -> None:
    assert knapsack({"a": 1, "b": 1, "c": -1}, {"a": -0.5, "b": 2, "c": 0}, 1.0) == {"a"}
    assert knapsack({"a": 1, "b": 1}, {"a": 0, "b": 2}, 0.0) == {"a"}


@pytest.mark.parametrize("make", [residual, branches, attention])
def test_costs_meet_the_models_that_were_measured(make: Any) -> None:
    mixes = mixes_of(make())
    costs = measure_costs(mixes.trials, mixes.table, mixes.trials.samples[0])
    everything = frozenset(layer.name for layer in mixes.trials.layers.integer)
    assert costs.seconds(()) == pytest.approx(costs.integer)
    if sum(costs.saved.values()) > 0:
        assert costs.seconds(everything) == pytest.approx(costs.float)


def made_costs(border: float = 1.0) -> Costs:
    """Costs of the residual network by hand: a layer saves 1, 2, ... and casts take 1/8, 1/4."""
    mixes = mixes_of(residual())
    names = [layer.name for layer in mixes.trials.layers.integer]
    saved = {n: float(k) for k, n in enumerate(names, 1)}
    quantized, dequantized = dict.fromkeys("xabcsdpfy", 0.125), dict.fromkeys("xabcsdpfy", 0.25)
    return Costs(mixes.trials, 10.0, 46.0, saved, quantized, dequantized, border)


def test_seconds_are_those_of_nodes_and_of_borders() -> None:
    costs = made_costs(border=4.0)
    assert costs.seconds(()) == 10
    assert costs.seconds(costs.saved) == 46, "eight layers, 36 in all"
    # b alone: its 2 of 36; its input is spread, its output rounded; the share of the ends' casts
    assert costs.saved["b"] == 2
    ends = 2 / 36 * (0 - 0.125)
    extra = (0.125 + 0.25 + 0.125) - 0.125 - ends
    assert costs.seconds({"b"}) == pytest.approx(10 + 2 + 4 * extra)


@given(st.floats(0, 20), st.lists(st.frozensets(st.sampled_from("abcsdpfy")), min_size=2))
def test_the_cost_of_borders_is_found_from_mixed_models(
    border: float, sets: list[frozenset[str]]
) -> None:
    real, bare = COSTS.with_border(border), COSTS.with_border(0.0)
    found = COSTS.costs.fitted({s: real.seconds(s) for s in sets})
    if any(abs(real.seconds(s) - bare.seconds(s)) > 1e-3 * border for s in sets):
        assert found.border == pytest.approx(border, rel=1e-6, abs=1e-9)
    for chosen in sets:
        assert found.seconds(chosen) == pytest.approx(real.seconds(chosen), abs=1e-6)


class Borders:
    """Costs that are made once: opening a network takes longer than asking it."""

    @cached_property
    def costs(self) -> Costs:
        return made_costs()

    def with_border(self, border: float) -> Costs:
        return replace(self.costs, border=border)


COSTS = Borders()


def test_the_borders_that_fit_best_are_those_of_least_squares() -> None:
    """Against numpy, with seconds that no border explains."""
    costs = COSTS.costs
    sets = [frozenset("b"), frozenset("bc"), frozenset("asd")]
    bare = np.array([COSTS.with_border(0.0).seconds(s) for s in sets])
    casts = np.array([COSTS.with_border(1.0).seconds(s) for s in sets]) - bare
    seconds = bare + np.array([1.0, 0.2, 0.7])
    (expected,), *_ = np.linalg.lstsq(casts[:, None], seconds - bare, rcond=None)
    probes = dict(zip(sets, seconds.tolist(), strict=True))
    assert costs.fitted(probes).border == pytest.approx(expected)
    quick = dict.fromkeys(sets, 0.0)
    assert costs.fitted(quick).border == 0, "a border gives no time back"
    assert costs.fitted({frozenset(): 99.0}).border == 1, "nothing is known of borders"


def test_whole_models_are_taken_at_their_quickest() -> None:
    costs = COSTS.costs
    found = costs.seen({frozenset(): 12.0, frozenset("abcsdpfy"): 40.0, frozenset("a"): 1.0})
    assert (found.integer, found.float) == (10.0, 40.0)
    assert costs.seen({}) == costs


def test_a_layer_may_be_quicker_in_float() -> None:
    """A gate that takes longer in integers: the time of the mixed model goes below both ends."""
    saved = dict(COSTS.costs.saved) | {"b": -6.0}
    costs = replace(COSTS.costs, saved=saved, border=0.0)
    assert costs.seconds({"b"}) < costs.integer
    sets = front(costs, dict.fromkeys(saved, 1.0), 4)
    assert all("b" in s for s in sets[1:])


def test_casts_are_counted_at_the_borders() -> None:
    mixes = mixes_of(residual())
    costs = measure_costs(mixes.trials, mixes.table, mixes.trials.samples[0])
    size = {n: costs.quantized[n] for n in "xabcsdp"}
    back = {n: costs.dequantized[n] for n in "xabcsdp"}
    assert costs._casts(frozenset()) == pytest.approx(size["x"])
    alone = costs._casts(frozenset("b"))
    assert alone == pytest.approx(size["x"] + back["a"] + size["b"])
    whole = frozenset("abcsdpfy")
    assert costs._casts(whole) == 0


def test_the_front_goes_from_integers_to_float() -> None:
    mixes = mixes_of(residual())
    costs = measure_costs(mixes.trials, mixes.table, mixes.trials.samples[0])
    losses = {layer.name: 1e-3 * n for n, layer in enumerate(mixes.trials.layers.integer, 1)}
    sets = front(costs, losses, 4)
    assert sets[0] == frozenset()
    assert sets[-1] == set(losses)
    points = measure_front(mixes, costs, sets)
    assert {p.floats for p in points} == set(sets)
    assert [p.seconds for p in points] == sorted(p.seconds for p in points)
    for point in points:
        assert point.score == mixes.score(point.floats)
        if point.floats in (frozenset(), frozenset(losses)):
            assert point.predicted <= point.seconds * (1 + 1e-9), "whole models at their quickest"


def test_times_are_of_all_models_in_turn() -> None:
    module = residual()
    found = seconds_of({"a": module, "b": module}, samples_of(module)[0], rounds=3)
    assert set(found) == {"a", "b"}
    assert all(s > 0 for s in found.values())


def test_a_point_is_chosen_by_goal_or_by_time() -> None:
    points = [Point(frozenset(str(n)), 0.0, n / 10, float(n)) for n in range(1, 5)]
    assert choose_point(points, 0.25, None) is points[2], "the fastest that has the goal"
    assert choose_point(points, 9.0, None) is points[3]
    assert choose_point(points, 0.0, 2.5) is points[1], "the best within the time"
    assert choose_point(points, 0.0, 0.5) is points[0]


def names(nodes: Any) -> set[str]:
    return {n.name for n in nodes}


def test_parts_of_a_network() -> None:
    graph = residual().graph
    assert names(with_ancestors(graph, ["c"])) == set("abc")
    assert names(with_descendants(graph, ["d"])) == set("dpfy")
    assert names(between(graph, ["b"], ["s", "d"])) == set("bcsd")
    assert names(between(graph, ["a", "d"], ["b", "p"])) == set("abcsdp")
    with pytest.raises(QdqcError, match="no way leads from d to b"):
        between(graph, ["d"], ["b"])
    with pytest.raises(QdqcError, match="there is no layer 'bb'"):
        with_ancestors(graph, ["bb"])
    with pytest.raises(QdqcError, match="there is no layer 'x'"):
        with_descendants(graph, ["x"])
