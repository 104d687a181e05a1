"""Searches on random networks, held against trying all sets of layers."""

from __future__ import annotations

from functools import cache
from itertools import combinations

import numpy as np
import pytest
from search_nets import Net, samples_of, table_of

from qdqc.ops import Add, Relu
from qdqc.search.strategies.accuracy import control_accuracy
from qdqc.search.strategies.deviations import Parts
from qdqc.search.strategies.mixes import Mix, Mixes
from qdqc.search.strategies.smallest import find_smallest
from qdqc.search.strategies.walk import layer_cosines, walk
from qdqc.search.trials.journal import Journal
from qdqc.search.trials.layers import ranges_of
from qdqc.search.trials.mixed_models import MixedModels
from qdqc.search.trials.objective import Likeness
from qdqc.search.trials.trials import Trials

SEEDS = range(4)


@cache
def searched(seed: int) -> tuple[Trials, Parts, dict[frozenset[str], float]]:
    """Trials of a random network, its parts, and the scores of all sets of its layers."""
    rng = np.random.default_rng(seed)
    net = Net(1, 3, 6, 6, seed=seed)
    held = [net.conv("l0", net.x, 4)]
    for number in range(1, 4 + seed % 2):
        name, source = f"l{number}", held[rng.integers(len(held))]
        kind = rng.integers(3)
        if kind == 0 and len(held) > 1:
            held.append(net.op(name, Add(), source, held[rng.integers(len(held))]))
        else:
            made = net.conv(name, source, 4, int(rng.choice([1, 3])))
            held.append(net.op(f"{name}r", Relu(), made) if kind == 1 else made)
    module = net.returns(net.conv("y", net.op("sum", Add(), held[-1], held[-2]), 2, 1))
    samples = samples_of(module, 5, seed)
    table = table_of(module, samples, float(rng.uniform(0.5, 1.0)))
    trials = Trials(MixedModels(module), table, samples, Likeness({"y": 1.0}))
    parts = Parts(trials, ranges_of(trials.layers.planned))
    parts.measure()
    names = [layer.name for layer in trials.layers.integer]
    sets = [frozenset(c) for size in range(len(names) + 1) for c in combinations(names, size)]
    return trials, parts, {s: trials.score_of(table, s) for s in sets}


class Known(Mixes):
    """Mixes whose scores were all found before."""

    def __init__(self, trials: Trials, scores: dict[frozenset[str], float], goal: float) -> None:
        table = table_of(trials.models.module, list(trials.samples))
        super().__init__(trials, table, Journal(None, ""), goal)
        self._scores = scores

    def score(self, floats: object = ()) -> float:
        chosen = frozenset(floats)  # type: ignore[call-overload]
        self.verified.setdefault(chosen, Mix(chosen, self._scores[chosen]))
        return self._scores[chosen]


def mixes_of(seed: int, goal: float) -> Mixes:
    trials, _, scores = searched(seed)
    return Known(trials, scores, goal)


def goals(scores: dict[frozenset[str], float]) -> list[float]:
    """Goals between INT8 and float: what the best set of each size reaches, a little less."""
    most = max(len(s) for s in scores)
    best = [max(v for s, v in scores.items() if len(s) == size) for size in range(most + 1)]
    low = scores[frozenset()]
    return [b - 1e-9 for b in best if b > low] + [(low + max(best)) / 2]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_goal_that_some_set_reaches_is_reached_and_the_set_is_hardly_larger(seed: int) -> None:
    _, parts, scores = searched(seed)
    larger = 0
    for goal in goals(scores):
        mixes = mixes_of(seed, goal)
        find_smallest(mixes, parts, sorted(max(scores, key=len)))
        least = min(len(s) for s, score in scores.items() if score >= goal)
        assert mixes.best.score >= goal
        assert len(mixes.best.floats) <= least + 1
        larger += len(mixes.best.floats) > least
    assert larger <= len(goals(scores)) // 3


@pytest.mark.parametrize("seed", SEEDS)
def test_the_result_is_the_best_that_was_verified_and_none_of_it_can_go(seed: int) -> None:
    _, parts, scores = searched(seed)
    for goal in goals(scores):
        mixes = mixes_of(seed, goal)
        find_smallest(mixes, parts, [])
        best = mixes.best
        reached = [s for s in mixes.verified if scores[s] >= goal]
        assert len(best.floats) == min(map(len, reached))
        assert best.score == max(scores[s] for s in reached if len(s) == len(best.floats))
        assert all(scores[best.floats - {name}] < goal for name in best.floats)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_strategy_gives_less_than_int8_or_claims_what_it_did_not_verify(seed: int) -> None:
    trials, _, scores = searched(seed)
    goal = goals(scores)[-1]
    for strategy in ("walk", "accuracy"):
        mixes = mixes_of(seed, goal)
        if strategy == "walk":
            walk(mixes, layer_cosines(trials, mixes.table), 1.0)
        else:
            control_accuracy(mixes)
        best = mixes.best
        assert best.floats in mixes.verified
        assert best.score == scores[best.floats] >= scores[frozenset()]


@pytest.mark.parametrize("seed", SEEDS)
def test_accuracy_control_takes_back_what_gains_most_first(seed: int) -> None:
    """Against the scores of all sets: the first group is the best single one, and so on."""
    trials, _, scores = searched(seed)
    mixes = mixes_of(seed, 2.0)
    done = control_accuracy(mixes)
    names = [layer.name for layer in trials.layers.integer]
    groups = {trials.layers.moved_with(frozenset({n})) for n in names}
    assert {step.group for step in done} == groups, "without a goal in reach all are tried"
    assert scores[done[0].group] == max(scores[g] for g in groups)
    score, floats = scores[frozenset()], frozenset[str]()
    for step in done:
        assert step.score == scores[floats | step.group]
        assert step.gain == pytest.approx(step.score - score, abs=1e-15)
        if step.kept:
            floats, score = floats | step.group, step.score
    assert mixes.best.score >= score


@pytest.mark.parametrize("seed", SEEDS)
def test_predicted_scores_order_sets_as_real_ones_do(seed: int) -> None:
    _, parts, scores = searched(seed)
    predicted = {s: parts.score(s) for s in scores}
    best = max((s for s in scores if len(s) == 2), key=lambda s: predicted[s])
    pairs = sorted((s for s in scores if len(s) == 2), key=lambda s: -scores[s])
    assert pairs.index(best) < max(3, len(pairs) // 3)
    real = np.argsort(np.argsort(list(scores.values())))
    told = np.argsort(np.argsort(list(predicted.values())))
    assert np.corrcoef(real, told)[0, 1] > 0.7
