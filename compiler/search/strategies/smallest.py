"""The smallest set of float layers with which a model reaches its goal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import count

from qdqc.search.strategies.deviations import Parts
from qdqc.search.strategies.mixes import Mix, Mixes
from qdqc.search.strategies.sensitivity import DEFAULT_METHODS, Sensitivity
from qdqc.search.strategies.strategy import Search, Strategy
from qdqc.search.trials.layers import Layers

__all__ = ["Smallest", "find_smallest"]

_EFFORT = 1200
"""Sets that are predicted for each size."""
_TRIED = 8
"""Sets of a size that are verified where one of them may reach the goal."""
_HOPE = 1.5
"""A set may reach the goal whose predicted loss is at most that many times what is allowed."""
_LEVELS = 16
"""Largest size that is searched one by one; beyond it sets grow by the predicted order."""

Set = frozenset[str]


def find_smallest(mixes: Mixes, parts: Parts, ranking: Sequence[str]) -> None:
    """Verify models until ``mixes.best`` is the smallest that was found to reach the goal.

    Sizes are tried from 1 on. Of each size, beam search over predicted models proposes sets,
    and the most promising are verified; the first size that reaches the goal is taken. Larger
    sets grow by doubling along ``ranking``. In the end each member is tried without. Nothing
    is taken for reached that was not verified on the deployed model. Raises QdqcError.
    """
    if mixes.reaches(()):
        return
    layers = mixes.trials.layers
    names = [layer.name for layer in layers.integer]
    if not names:
        return
    scale = _Scale(mixes, parts)
    for size, sets in zip(count(1), _beams(layers, parts, names), strict=False):
        if size > min(_LEVELS, len(names)):
            break
        if any(mixes.reaches(s) for s in scale.promising(sets)):
            break
    if mixes.best.score < mixes.goal:
        _grow(mixes, [*ranking, *(n for n in names if n not in set(ranking))])
    _shrink(mixes, ranking)


class _Scale:
    """Turns predicted losses into ones of deployed models, by those verified so far."""

    def __init__(self, mixes: Mixes, parts: Parts) -> None:
        self._mixes = mixes
        self._parts = parts

    def promising(self, sets: Sequence[Set]) -> Iterator[Set]:
        """The sets to verify, the most promising first; one at least."""
        ideal = self._mixes.trials.ideal
        allowed = ideal - self._mixes.goal
        for number, chosen in enumerate(sets[:_TRIED]):
            loss = self._factor() * (self._parts.ideal - self._parts.score(chosen))
            if number and loss > _HOPE * allowed:
                return
            yield chosen

    def _factor(self) -> float:
        """Real loss over predicted loss, of the verified model that lost least."""
        mixes, parts = self._mixes, self._parts
        best = max(mixes.verified.values(), key=lambda m: m.score)
        predicted = parts.ideal - parts.score(best.floats)
        return (mixes.trials.ideal - best.score) / predicted if predicted > 0 else 1.0


def _beams(layers: Layers, parts: Parts, names: Sequence[str]) -> Iterator[list[Set]]:
    """For each size from 1 on the sets that are predicted to be best, best first.

    A set grows by a layer, or by two neighbours at once: a value between two integer layers
    stays rounded until both are float.
    """
    pairs = layers.neighbours()
    width = max(2, _EFFORT // max(1, len(names) + len(pairs)))
    before, last = list[Set](), [Set()]
    while True:
        grown = {smaller | {name} for smaller in last for name in names if name not in smaller}
        grown |= {smaller | pair for smaller in before for pair in pairs if not smaller & pair}
        scored = {chosen: parts.score(chosen) for chosen in grown}
        ordered = sorted(scored, key=lambda s: (-scored[s], sorted(s)))
        yield ordered[: max(width, _TRIED)]
        before, last = last, ordered[:width]


def _grow(mixes: Mixes, order: Sequence[str]) -> None:
    """Double the first layers of an order until the goal is reached, then halve the step."""
    reached, missed = 0, min(_LEVELS, len(order))
    size = missed
    while not reached and size < len(order):
        size = min(2 * size, len(order))
        if mixes.reaches(order[:size]):
            reached = size
        else:
            missed = size
    while reached - missed > 1:
        middle = (reached + missed) // 2
        if mixes.reaches(order[:middle]):
            reached = middle
        else:
            missed = middle


def _shrink(mixes: Mixes, ranking: Iterable[str]) -> None:
    """Try the best model without each of its float layers, the least sensitive first."""
    order = {name: place for place, name in enumerate(ranking)}
    best = mixes.best
    if best.score < mixes.goal:
        return
    for name in sorted(best.floats, key=lambda n: -order.get(n, len(order))):
        if name in mixes.best.floats:
            mixes.reaches(mixes.best.floats - {name})


class Smallest(Strategy):
    """Rank layers by what each loses alone in INT8, and find the fewest to leave float.

    ``methods`` are those whose ranges are tried beside the given table's. With
    ``max_float_layers`` that many of the worst layers stay float, whatever they reach.
    """

    name = "smallest"

    methods: tuple[str, ...] = DEFAULT_METHODS
    max_float_layers: int | None = None

    def run(self, search: Search) -> None:
        sensitivity = search.run_sensitivity(self.methods)
        _take_table(search, sensitivity)
        ranking = [j.layer.name for j in sensitivity.ranking()]
        if self.max_float_layers is not None:
            worst = frozenset(ranking[: self.max_float_layers])
            search.chosen = Mix(worst, search.mixes.score(worst))
        elif not search.mixes.reaches(()):
            parts = sensitivity.parts()
            parts.measure(search.stage("parts", "layer"))
            _report_models(search)
            find_smallest(search.mixes, parts, ranking)


def _take_table(search: Search, sensitivity: Sensitivity) -> None:
    """Go on with the new table, unless the whole INT8 model is better with the given one."""
    new = Mixes(search.trials, sensitivity.table(), search.journal, search.goal)
    if new.score() >= search.mixes.score():
        search.mixes = new
    else:
        search.note("the given table serves the whole model better: it is kept")


def _report_models(search: Search) -> None:
    mixes, progress = search.mixes, search.stage("mixed models", "model")

    def report(_: Mix) -> None:
        best = mixes.best
        note = f"best {best.score:.6f}, {len(best.floats)} float"
        progress(len(mixes.verified), 0, note)

    mixes.progress = report
