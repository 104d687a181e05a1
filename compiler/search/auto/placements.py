"""Modes of all nodes that cost least, when noise has a price in seconds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from qdqc.ir.graph import Graph
from qdqc.ir.op import Kind
from qdqc.ir.view import to_networkx
from qdqc.quant.cheapest import Prices, cheapest
from qdqc.runtime.comparison.compare import decibels
from qdqc.search.costs.mode_times import ModeTimes
from qdqc.search.trials.layers import Layers

__all__ = ["Costs", "placements", "slower_islands"]

_STEPS = 12
_WIDE = 0.5
"""Share of values below a step from which on their range spans too much for 8 bits."""
_NOISY = 0.02
"""Share of the noise from which on it is a node's reason."""
_SPAN = 4.0
"""Decades of the price of noise that are swept."""


@dataclass(frozen=True)
class Costs:
    """Measured seconds of nodes by mode, and the noise over signal of what modes round.

    ``rounding`` is by ``values N`` and ``weights N`` of INT8, as ``Layers.parts_with`` has them;
    ``modes`` is the noise of products in other modes, by mode and name. What was not measured is
    taken to make none. ``slower`` is what float nodes take beyond their time, by name, where a
    mixed model showed it, ``below`` the share of numbers that lie below a step of 8 bits, of nodes
    that make much noise.
    """

    layers: Layers
    times: ModeTimes
    rounding: Mapping[str, float]
    modes: Mapping[str, Mapping[str, float]]
    slower: Mapping[str, float] = field(default_factory=dict[str, float])
    below: Mapping[str, float] = field(default_factory=dict[str, float])

    def others(self, name: str, price: float) -> tuple[str, float]:
        """The mode beside INT8 that costs least for a node, and its cost in seconds."""
        best = "F32", self.times.of(name, "F32") + self.slower.get(name, 0.0)
        for mode, noise in self.modes.items():
            if name in noise:
                cost = self.times.of(name, mode) + price * noise[name]
                best = min(best, (mode, cost), key=lambda choice: choice[1])
        return best

    def noise(self, modes: Mapping[str, str]) -> float:
        """The predicted noise over signal of the model in which these nodes leave INT8."""
        parts = self.layers.parts_with(frozenset(modes))
        rounded = sum(self.rounding.get(part, 0.0) for part in parts)
        return rounded + sum(self.modes.get(m, {}).get(n, 0.0) for n, m in modes.items())

    def reason(self, name: str, mode: str) -> str:
        """Why a node is in a mode other than INT8: its time, its noise, or its neighbours."""
        integer, other = (self.times.of(name, m) * 1e6 for m in ("INT8", mode))
        total = sum(self.rounding.values())
        parts = (self.rounding.get(f"{kind} {name}", 0.0) for kind in ("values", "weights"))
        share = sum(parts) / total if total > 0 else 0.0
        why: list[str] = []
        if other < integer:
            why.append(f"it takes {other:.0f} us in {mode}, and {integer:.0f} us in INT8")
        if share >= _NOISY:
            below = self.below.get(name, 0.0)
            wide = f", as {100 * below:.0f} % of its values lie below one step"
            why.append(f"its rounding makes {100 * share:.0f} % of the noise of INT8")
            why[-1] += wide if below > _WIDE else ""
        beside = f"casts beside nodes that are not INT8 would take more than the {mode} kernel"
        return "; ".join(why) or beside

    def alone(self) -> dict[str, float]:
        """The SQNR in dB that rounded values alone leave in INT8, and weights alone."""
        noise = {"values": 0.0, "weights": 0.0}
        for part, lost in self.rounding.items():
            noise[part.partition(" ")[0]] += lost
        return {kind: decibels(lost) for kind, lost in noise.items() if lost > 0}

    def noisy(self, count: int = 20) -> list[str]:
        """The nodes whose values' rounding makes most noise."""
        total = sum(self.rounding.values())
        worst = sorted(self.rounding, key=lambda part: -self.rounding[part])[:count]
        much = [p for p in worst if total > 0 and self.rounding[p] / total >= _NOISY]
        return [part.removeprefix("values ") for part in much if part.startswith("values ")]

    def best(self, price: float) -> dict[str, str]:
        """The modes of nodes that leave INT8 where noise over signal of 1 costs ``price``."""
        graph, decisions = self.layers.planned.graph, self.layers.decisions
        able = [n for n, d in decisions.items() if d.integer]
        integer: dict[str, float] = {}
        tied: list[tuple[str, str]] = []
        first: dict[str, str] = {}
        for node in able:
            owner = self.layers.owner(node)
            own = price * self.rounding.get(f"weights {node.name}", 0.0)
            if owner in first:
                tied.append((first[owner], node.name))
            else:
                first[owner] = node.name
                own += self.times.of(owner, "INT8") - self.others(owner, price)[1]
            integer[node.name] = own
        tied += [(first[a], first[b]) for a, b in self.times.fused if a in first and b in first]
        rounding = {
            part.removeprefix("values "): price * noise
            for part, noise in self.rounding.items()
            if part.startswith("values ")
        }
        prices = Prices(integer, self.times.quantized, self.times.dequantized, rounding, tied)
        floats = cheapest(graph, self.layers.target, decisions, prices)
        owners = dict.fromkeys(self.layers.owner(n) for n in able if n.name in floats)
        return self._modes(owners, price)

    def _modes(self, owners: Iterable[str], price: float) -> dict[str, str]:
        """The modes of float nodes, and of products that integers do not take."""
        modes = {name: self.others(name, price)[0] for name in owners}
        for node, decision in self.layers.decisions.items():
            name = self.layers.owner(node)
            if not decision.integer and decision.traits.kind is Kind.WEIGHTED:
                mode = self.others(name, price)[0]
                if mode != "F32":
                    modes[name] = mode
        return modes


def slower_islands(
    graph: Graph,
    costs: Costs,
    modes: Mapping[str, str],
    integer: Mapping[str, float],
    mixed: Mapping[str, float],
) -> dict[str, float]:
    """Seconds by node of float islands that are slower than in integers, neighbours included.

    ``integer`` and ``mixed`` are the seconds of nodes in INT8 and with these ``modes``. The nodes
    of an island share by how much it missed what its nodes were said to save.
    """
    import networkx

    whole: Any = to_networkx(graph).to_undirected(as_view=True)
    names = {node.name: node for node in graph.nodes()}
    slower: dict[str, float] = {}
    islands = networkx.connected_components(whole.subgraph(names[n] for n in modes))
    for island in islands:
        near = set(island).union(*(whole.neighbors(node) for node in island))
        near = near.union(*(whole.neighbors(n) for n in near if n.traits.kind is Kind.PRESERVING))
        saved = sum(integer.get(n.name, 0.0) - mixed.get(n.name, 0.0) for n in near)
        if saved < 0:
            times = costs.times
            said = sum(times.of(n.name, "INT8") - times.of(n.name, "F32") for n in island)
            slower |= {n.name: max(0.0, said - saved) / len(island) for n in island}
    return slower


def placements(costs: Costs, whole: float) -> Iterator[dict[str, str]]:
    """Modes at rising prices of noise, from none on; ``whole`` is the model's seconds in float."""
    total = sum(costs.rounding.values())
    yield costs.best(0.0)
    if total <= 0 or math.isinf(total):
        return
    for step in range(_STEPS):
        decades = _SPAN * (step / (_STEPS - 1) - 0.5)
        yield costs.best(whole / total * 10**decades)
