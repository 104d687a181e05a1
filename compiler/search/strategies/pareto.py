"""The front of accuracy against latency: which layers are worth their time in float."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from qdqc.search.costs.node_costs import Costs, measure_costs, seconds_of
from qdqc.search.strategies.mixes import Mix, Mixes
from qdqc.search.strategies.pareto_point import Point
from qdqc.search.strategies.sensitivity import DEFAULT_METHODS
from qdqc.search.strategies.strategy import Search, Strategy

__all__ = ["Pareto", "choose_point", "front", "knapsack", "measure_front"]

_BINS = 400
"""Steps of time that the knapsack tells apart."""


def knapsack(
    gains: Mapping[str, float], prices: Mapping[str, float], budget: float, bins: int = _BINS
) -> frozenset[str]:
    """The names of the greatest sum of gains whose prices sum to no more than the budget.

    Prices are rounded up to ``budget / bins``, so that the budget holds; what is free is taken.
    Exact but for that: dynamic programming over the steps.
    """
    free = frozenset(n for n, gain in gains.items() if gain > 0 and prices[n] <= 0)
    if budget <= 0:
        return free
    step = budget / bins
    best: list[tuple[float, frozenset[str]]] = [(0.0, frozenset())] * (bins + 1)
    for name, gain in gains.items():
        price = -int(-prices[name] // step)
        if gain <= 0 or name in free or price > bins:
            continue
        for room in range(bins, price - 1, -1):
            total = best[room - price][0] + gain
            if total > best[room][0]:
                best[room] = (total, best[room - price][1] | {name})
    return free | best[bins][1]


def front(costs: Costs, gains: Mapping[str, float], points: int = 7) -> list[frozenset[str]]:
    """Sets of float layers from none to all, at even distances of time.

    Gains of layers are taken to add up, and so is their time (``knapsack``).
    """
    everything = frozenset(gains)
    span = max(0.0, costs.float - costs.integer)
    prices = {n: costs.seconds({n}) - costs.integer for n in gains}
    sets = [frozenset[str]()]
    for number in range(1, points - 1):
        sets.append(knapsack(gains, prices, span * number / (points - 1)))
    return list(dict.fromkeys([*sets, everything]))


def measure_front(
    mixes: Mixes,
    costs: Costs,
    sets: Sequence[frozenset[str]],
    progress: Callable[[int, int, str], object] = lambda done, total, note: None,
) -> list[Point]:
    """Deploy each set, score it, and time all of them interleaved; fastest first.

    What is predicted lies between the times of the models with no float layers and with all,
    at their quickest: a machine is not as fast at one time as at another.
    """
    trials = mixes.trials
    scores: list[float] = []
    for number, floats in enumerate(sets, 1):
        scores.append(mixes.score(floats))
        progress(number, len(sets), "")
    modules = {
        str(place): trials.models.lowered(mixes.table, floats) for place, floats in enumerate(sets)
    }
    seconds = seconds_of(modules, trials.samples[0])
    costs = costs.seen({floats: seconds[str(place)] for place, floats in enumerate(sets)})
    points = [
        Point(floats, costs.seconds(floats), score, seconds[str(place)])
        for place, (floats, score) in enumerate(zip(sets, scores, strict=True))
    ]
    return sorted(points, key=lambda p: p.seconds)


def choose_point(points: Sequence[Point], goal: float, limit: float | None) -> Point:
    """The best score within ``limit`` seconds; without a limit the fastest that has the goal.

    Where none has it, or none is fast enough, the nearest: the best score, or the fastest.
    """
    if limit is not None:
        within = [p for p in points if p.seconds <= limit]
        return max(within, key=lambda p: p.score) if within else points[0]
    reached = [p for p in points if p.score >= goal]
    return reached[0] if reached else max(points, key=lambda p: p.score)


class Pareto(Strategy):
    """Weigh accuracy against time: the best score within a latency, or the fastest with the goal.

    ``points`` models of the front are deployed and timed. ``max_latency`` is in milliseconds;
    without it the goal decides. ``methods`` are those whose ranges are tried beside the given.
    """

    name = "pareto"

    points: int = 7
    max_latency: float | None = None
    methods: tuple[str, ...] = DEFAULT_METHODS

    def run(self, search: Search) -> None:
        search.run_sensitivity(self.methods)
        mixes = search.mixes
        costs = measure_costs(mixes.trials, mixes.table, mixes.trials.samples[0])
        sets = front(costs, search.losses, max(2, self.points))
        search.points = measure_front(mixes, costs, sets, search.stage("front", "model"))
        limit = None if self.max_latency is None else self.max_latency / 1000
        point = choose_point(search.points, mixes.goal, limit)
        search.chosen = Mix(point.floats, point.score)
