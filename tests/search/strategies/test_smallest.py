"""Sets of float layers: predicted by parts, verified on deployed models, as small as can be."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from search_nets import Net, attention, branches, residual, samples_of, table_of

from qdqc.calibration.table import Table
from qdqc.ir.graph import Module
from qdqc.kept_folder import KeptFolder
from qdqc.search.strategies.deviations import Parts, samples_within
from qdqc.search.strategies.mixes import Mixes
from qdqc.search.strategies.smallest import find_smallest
from qdqc.search.trials.journal import SUFFIX, Journal
from qdqc.search.trials.layers import Layers, ranges_of
from qdqc.search.trials.mixed_models import MixedModels
from qdqc.search.trials.objective import Likeness
from qdqc.search.trials.trials import Trials


def trials_of(module: Module, count: int = 6) -> Trials:
    samples = samples_of(module, count)
    names = [v.name for v in module.graph.outputs]
    goal = Likeness({n: 1 / len(names) for n in names})
    return Trials(MixedModels(module), table_of(module, samples, 0.9), samples, goal)


def parts_of(trials: Trials) -> Parts:
    parts = Parts(trials, ranges_of(trials.layers.planned))
    parts.measure()
    return parts


def table(trials: Trials) -> Table:
    return table_of(trials.models.module, list(trials.samples), 0.9)


def test_parts_add_up_where_the_network_is_linear() -> None:
    """conv -> conv: the deviations of roundings and weights are those of the deployed model."""
    net = Net(1, 4, 8, 8, seed=2)
    module = net.returns(net.conv("b", net.conv("a", net.x, 8), 4))
    trials = trials_of(module)
    parts = parts_of(trials)
    exact = np.concatenate([o["b"].ravel() for o in trials.exact])
    for floats in (frozenset(), frozenset({"a"}), frozenset({"b"})):
        outputs = trials.outputs_of(table(trials), floats)
        real = np.concatenate([o["b"].ravel() for o in outputs]) - exact
        predicted = parts.deviation(floats)
        near = float(np.dot(real, predicted) / np.linalg.norm(real) / np.linalg.norm(predicted))
        assert near > 0.75, "rounding noise is drawn anew where its input changed"
        assert np.linalg.norm(predicted) == pytest.approx(np.linalg.norm(real), rel=0.2)
    assert not parts.deviation(frozenset({"a", "b"})).any()


def test_no_part_is_left_when_all_layers_are_float(net: Module) -> None:
    trials = trials_of(net)
    parts = parts_of(trials)
    everything = frozenset(layer.name for layer in trials.layers.integer)
    assert parts.score(everything) == pytest.approx(trials.ideal, abs=1e-6)
    assert parts.score(()) < parts.score(everything)


@pytest.mark.parametrize("make", [residual, branches, attention])
def test_parts_rank_mixed_models_as_they_are(make: object) -> None:
    trials = trials_of(make(), 40)  # type: ignore[operator]
    parts = parts_of(trials)
    names = [layer.name for layer in trials.layers.integer]
    sets = [frozenset(c) for k in (0, 1, 2) for c in combinations(names, k)]
    real = [trials.score_of(table(trials), s) for s in sets]
    predicted = [parts.score(s) for s in sets]
    ranks = [np.argsort(np.argsort(v)) for v in (real, predicted)]
    assert np.corrcoef(ranks[0], ranks[1])[0, 1] > 0.7


@pytest.mark.parametrize("make", [residual, branches, attention])
def test_the_found_set_is_as_small_as_any(make: object, tmp_path: Path) -> None:
    """At targets between all models' scores, held against trying all sets."""
    trials = trials_of(make())  # type: ignore[operator]
    parts = parts_of(trials)
    names = [layer.name for layer in trials.layers.integer]
    journal = Journal(KeptFolder(tmp_path, "search", SUFFIX), "all")
    every = Mixes(trials, table(trials), journal, 1.0)
    best = [
        max(every.score(c) for c in combinations(names, size)) for size in range(len(names) + 1)
    ]
    worse = 0
    for size in range(1, min(4, len(names))):
        goal = (max(best[:size]) + best[size]) / 2
        if not max(best[:size]) < goal <= best[size]:
            continue
        mixes = Mixes(trials, table(trials), journal, goal)
        find_smallest(mixes, parts, names)
        assert mixes.best.score >= goal
        worse += len(mixes.best.floats) > size
        assert len(mixes.best.floats) <= size + 1
    assert worse <= 1


def test_the_result_is_verified_and_none_of_its_layers_can_go() -> None:
    trials = trials_of(residual())
    parts = parts_of(trials)
    names = [layer.name for layer in trials.layers.integer]
    first = Mixes(trials, table(trials), Journal(None, ""), 2.0)
    goal = first.score(names[:4]) - 1e-9
    mixes = Mixes(trials, table(trials), Journal(None, ""), goal)
    find_smallest(mixes, parts, names)
    best = mixes.best
    assert best.score == trials.score_of(table(trials), best.floats) >= goal
    assert all(not mixes.reaches(best.floats - {name}) for name in best.floats)


def test_a_goal_out_of_reach_gives_the_best_that_was_verified() -> None:
    trials = trials_of(residual())
    mixes = Mixes(trials, table(trials), Journal(None, ""), 1.5)
    find_smallest(mixes, parts_of(trials), [])
    assert mixes.best.score == max(m.score for m in mixes.verified.values())
    assert mixes.best.score == pytest.approx(1.0, abs=1e-6), "all float is among them"


def test_a_goal_that_int8_reaches_takes_no_trial() -> None:
    trials = trials_of(residual())
    mixes = Mixes(trials, table(trials), Journal(None, ""), 0.1)
    find_smallest(mixes, parts_of(trials), [])
    assert mixes.best.floats == frozenset()
    assert len(mixes.verified) == 1


def test_verified_models_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trials = trials_of(residual())
    first = Mixes(trials, table(trials), Journal(KeptFolder(tmp_path, "search", SUFFIX), "k"), 1.0)
    held = first.score({"a"})
    monkeypatch.setattr(Trials, "score_of", lambda *_: pytest.fail("it was run again"))
    again = Mixes(trials, table(trials), Journal(KeptFolder(tmp_path, "search", SUFFIX), "k"), 1.0)
    assert again.score({"a"}) == held


def test_the_neighbours_that_leave_with_a_layer_are_those_that_placement_says() -> None:
    module = residual()
    layers = Layers(MixedModels(module), table_of(module, samples_of(module)))
    assert layers.moved_with(frozenset({"b"})) == {"b"}
    assert layers.moved_with(frozenset({"c", "a"})) == {"a", "c", "s"}, "an Add of two floats"
    assert "s" in layers.moved_with(frozenset({"d"})), "nothing reads its integers"
    assert frozenset({"b", "c"}) in layers.neighbours()


def test_deviations_stay_within_their_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = trials_of(residual())
    assert samples_within(trials, 6) == 6
    size = 2 * len(trials.layers.every) * 20
    monkeypatch.setattr("qdqc.search.strategies.deviations.LIMIT", 3 * size)
    assert samples_within(trials, 6) == 3
    monkeypatch.setattr("qdqc.search.strategies.deviations.LIMIT", 1)
    assert samples_within(trials, 6) == 1
