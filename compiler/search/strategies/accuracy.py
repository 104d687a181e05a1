"""Accuracy control: integer groups go back to float until the metric is near the float one.

The method of NNCF's quantization with accuracy control: groups are ranked by what the metric
gains when one alone goes back, on the samples that suffer most, and taken back one after
another, each verified on all samples. One that does not help is undone, and the rest is
ranked anew where others were taken back since the last ranking.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from qdqc.search.strategies.mixes import Mixes
from qdqc.search.strategies.strategy import Search, Strategy
from qdqc.search.trials.trials import Trials

__all__ = ["RANKED", "AccuracyControl", "Revert", "control_accuracy"]

RANKED = 300
"""Samples at most on which groups are ranked."""

Group = frozenset[str]


@dataclass(frozen=True)
class Revert:
    """A group that was taken back to float: the score with it, and its ``gain`` by that.

    It is ``kept`` where it gained anything.
    """

    group: Group
    score: float
    gain: float

    @property
    def kept(self) -> bool:
        return self.gain > 0


def control_accuracy(
    mixes: Mixes,
    *,
    ranked: int = RANKED,
    iterations: int = 0,
    progress: Callable[[str, int, int], object] = lambda what, done, total: None,
) -> list[Revert]:
    """Take groups back until the goal of ``mixes`` is reached; what was done, in order.

    At most ``iterations`` groups are tried, 0 for all. The result is the best model that was
    verified. Raises QdqcError.
    """
    done: list[Revert] = []
    if mixes.reaches(()):
        return done
    subset = _hardest(mixes, ranked)
    floats = Group()
    score = mixes.score()
    left = _groups(mixes.trials)
    order = _ranking(subset, mixes, floats, left, progress)
    changed = False
    while order and (not iterations or len(done) < iterations):
        group = order.pop(0)
        left = [g for g in left if g != group]
        reached = mixes.score(floats | group)
        done.append(Revert(group, reached, reached - score))
        if reached >= mixes.goal:
            return done
        if done[-1].kept:
            floats, score, changed = floats | group, reached, True
        elif changed:
            order, changed = _ranking(subset, mixes, floats, left, progress), False
    return done


def _groups(trials: Trials) -> list[Group]:
    """What leaves the integers together, from the output to the input, each group once."""
    names = [layer.name for layer in reversed(trials.layers.integer)]
    moved = (trials.layers.moved_with(frozenset({name})) for name in names)
    return list(dict.fromkeys(moved))


def _hardest(mixes: Mixes, count: int) -> Trials:
    """The trials on the samples that INT8 changes most."""
    trials = mixes.trials
    if count >= len(trials.samples):
        return trials
    losses = trials.sample_losses(mixes.table)
    worst = np.argsort(losses, kind="stable")[::-1][:count]
    return trials.on(sorted(worst.tolist()))


def _ranking(
    subset: Trials,
    mixes: Mixes,
    floats: Group,
    left: list[Group],
    progress: Callable[[str, int, int], object],
) -> list[Group]:
    """The groups by the score of the model in which each alone goes back beside ``floats``."""
    scores: dict[Group, float] = {}
    for number, group in enumerate(left, 1):
        if subset is mixes.trials:
            scores[group] = mixes.score(floats | group)
        else:
            scores[group] = subset.score_of(mixes.table, floats | group)
        progress(min(group), number, len(left))
    return sorted(left, key=lambda g: -scores[g])


class AccuracyControl(Strategy):
    """Take layers back to float, the most gaining first, until the goal is reached.

    They are ranked on at most ``ranking_num`` samples; at most ``max_num_iterations`` are taken
    back, 0 for all.
    """

    name = "accuracy"

    ranking_num: int = RANKED
    max_num_iterations: int = 0

    def run(self, search: Search) -> None:
        report = search.stage("ranking", "group")
        reverts = control_accuracy(
            search.mixes,
            ranked=self.ranking_num,
            iterations=self.max_num_iterations,
            progress=lambda what, done, total: report(done, total, what),
        )
        for step in reverts:
            group, undone = ", ".join(sorted(step.group)), "" if step.kept else ", taken back"
            search.detail(f"{group}: {step.score:.6f}{undone}")
        search.own_losses = {min(step.group): step.gain for step in reverts}
