"""The cheapest placement: which nodes had better stay float, as a minimum cut.

Every node is on one of two sides, float or integer, and pays a price there. A value that crosses
pays for its cast, once for all its readers; a value that is rounded anywhere pays for the
rounding, once. Such prices make a cut of a graph between two ends (Kolmogorov and Zabih 2004:
energies of pairs that would rather be alike), and the least cut is the best placement there is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.graph import Graph
from qdqc.ir.op import Kind
from qdqc.quant.placement import Decision, always_integer
from qdqc.quant.targets.target import Target, activations

__all__ = ["Prices", "cheapest", "cost_of", "rounded_source"]

_FLOAT, _INTEGER = "float", "integer"
_FINE = 1 << 40
"""Steps that the sum of all prices is told apart in: flows of whole numbers end, and are exact."""


@dataclass(frozen=True)
class Prices:
    """What a placement costs, all in one unit.

    ``integer`` is what a node costs in integers beyond what it costs in float, by name: less
    than 0 where integers are cheaper. ``quantized`` and ``dequantized`` are those of a cast by
    the value's name, ``rounding`` what it costs that a value is rounded at all, by the name of
    the value whose elements are rounded. Nodes that are ``tied`` are on the same side.
    """

    integer: Mapping[str, float]
    quantized: Mapping[str, float]
    dequantized: Mapping[str, float]
    rounding: Mapping[str, float] = field(default_factory=dict[str, float])
    tied: Iterable[tuple[str, str]] = ()


def cheapest(
    graph: Graph, target: Target, decisions: Mapping[Node[Any], Decision], prices: Prices
) -> frozenset[str]:
    """The names of integer nodes that cost less in float, of those that ``decisions`` place.

    A node that can't be integer stays float; one without a price follows its neighbours. Where
    both sides cost the same, a node is integer.
    """
    import networkx

    net = _Net()
    able = {n: d for n, d in decisions.items() if d.integer}
    for node in able:
        net.node(node.name, prices.integer.get(node.name, 0.0))
    for first, second in prices.tied:
        net.tie(first, second)
    for value in _floats(graph):
        _cross(net, value, able, target, prices)
    for source, values in _roundings(graph, decisions).items():
        _round(net, values, able, target, prices.rounding.get(source, 0.0))
    # Seen from the integer end, so that of equal placements the one with most integers is taken.
    reverse = net.whole().reverse(copy=False)
    _, (_, float_side) = networkx.minimum_cut(reverse, _INTEGER, _FLOAT)
    return frozenset(n.name for n in able if _at(n.name) in float_side)


def cost_of(target: Target, decisions: Mapping[Node[Any], Decision], prices: Prices) -> float:
    """What a placement costs beyond the one in which all nodes are float, roundings left out."""
    made: set[Value] = set()
    total = 0.0
    for node, decision in decisions.items():
        if decision.integer:
            total += prices.integer.get(node.name, 0.0)
            made.update(node.present_results if decision.result else ())
    spread = {v for v in made if v.is_output}
    rounded: set[Value] = set()
    for node, decision in decisions.items():
        read = {v for v in node.present_operands if not isinstance(v, Constant)}
        if decision.integer:
            taken = {node.operands[i] for i in activations(node, decision.traits)}
            rounded |= (read & taken) - made
        else:
            spread |= read & made
    free = {v for v in spread if v.producer and not always_integer(v.producer, target)}
    total += sum(prices.quantized.get(v.name, 0.0) for v in rounded)
    return total + sum(prices.dequantized.get(v.name, 0.0) for v in spread - free)


class _Net:
    """Arcs of a flow from the float end to the integer end: a cut arc is a price that is paid."""

    def __init__(self) -> None:
        self._arcs: dict[tuple[str, str], float] = {}
        self._helpers = 0

    def node(self, name: str, integer: float) -> None:
        """A node; on the integer side it pays ``integer``, or less than 0 on the other one."""
        arc = (_FLOAT, _at(name)) if integer > 0 else (_at(name), _INTEGER)
        self.arc(*arc, abs(integer))

    def tie(self, first: str, second: str) -> None:
        for arc in ((first, second), (second, first)):
            self.arc(_at(arc[0]), _at(arc[1]), None)

    def cast(self, floats: Iterable[str], integers: Iterable[str], price: float) -> None:
        """Paid once where any of ``floats`` is float and any of ``integers`` integer."""
        start, end = self.helper(), self.helper()
        self.arc(start, end, price)
        for name in floats:
            self.arc(name, start, None)
        for name in integers:
            self.arc(end, name, None)

    def helper(self) -> str:
        self._helpers += 1
        return f"helper {self._helpers}"

    def arc(self, start: str, end: str, price: float | None) -> None:
        """What is paid where ``start`` is float and ``end`` integer; None forbids it."""
        add = float("inf") if price is None else price
        if add > 0 and start != end:
            self._arcs[start, end] = self._arcs.get((start, end), 0.0) + add

    def whole(self) -> Any:
        """As networkx has it, prices as whole numbers; an arc without a capacity is infinite."""
        import networkx

        finite = sum(p for p in self._arcs.values() if p != float("inf"))
        step = finite / _FINE if finite > 0 else 1.0
        net: Any = networkx.DiGraph()
        net.add_nodes_from((_FLOAT, _INTEGER))
        for (start, end), price in self._arcs.items():
            limit = {} if price == float("inf") else {"capacity": round(price / step)}
            net.add_edge(start, end, **limit)
        return net


def _at(name: str) -> str:
    return f"node {name}"


def _floats(graph: Graph) -> list[Value]:
    """Values that may be cast: inputs, and what nodes give."""
    made = (r for node in graph.nodes() for r in node.present_results)
    return [*graph.inputs, *made]


def _side(node: Node[Any] | None, able: Mapping[Node[Any], Decision]) -> str:
    """The end, or the node of the flow, that an edge of a value begins or ends at."""
    return _at(node.name) if node is not None and node in able else _FLOAT


def _cross(
    net: _Net,
    value: Value,
    able: Mapping[Node[Any], Decision],
    target: Target,
    prices: Prices,
) -> None:
    """The casts of a value where it crosses from its producer to its readers.

    A product that may give float gives integers only where all its readers take them: where one
    does not, its float result is free, and is cast for those that do.
    """
    producer = value.producer
    takers = [u for u in _users(value) if u in able and _reads(u, value, able[u])]
    readers = [_side(u, able) for u in takers]
    start = _side(producer, able)
    elsewhere = [_FLOAT] if value.is_output or len(takers) < len(_users(value)) else []
    free = producer is None or producer not in able or not always_integer(producer, target)
    floats = [start, *readers, *elsewhere] if free else [start]
    net.cast(floats, readers, prices.quantized.get(value.name, 0.0))
    if not free:
        net.cast([*readers, *elsewhere], [start], prices.dequantized.get(value.name, 0.0))


def _users(value: Value) -> list[Node[Any]]:
    return list(dict.fromkeys(value.users))


def _reads(node: Node[Any], value: Value, decision: Decision) -> bool:
    """Whether a node takes a value in integers where it runs in these."""
    return any(node.operands[i] is value for i in activations(node, decision.traits))


def _roundings(graph: Graph, decisions: Mapping[Node[Any], Decision]) -> dict[str, list[Value]]:
    """Values by the one whose elements they have: what only moves them rounds none anew."""
    groups: dict[str, list[Value]] = {}
    for value in _floats(graph):
        groups.setdefault(rounded_source(value, decisions), []).append(value)
    return groups


def rounded_source(value: Value, decisions: Mapping[Node[Any], Decision]) -> str:
    """The name of the node, or of the input, whose elements a value has."""
    node = value.producer
    while node is not None and decisions[node].traits.kind is Kind.PRESERVING:
        source = node.at(0)
        if source is None or isinstance(source, Constant):
            break
        value, node = source, source.producer
    return node.name if node is not None else value.name


def _round(
    net: _Net,
    values: Iterable[Value],
    able: Mapping[Node[Any], Decision],
    target: Target,
    price: float,
) -> None:
    """The rounding of elements, paid where a node that makes or reads them is integer.

    Products that may give float round them only for readers.
    """
    rounding: list[str] = []
    for value in values:
        producer = value.producer
        if producer is not None and producer in able and always_integer(producer, target):
            rounding.append(_side(producer, able))
        rounding += [
            _side(u, able) for u in _users(value) if u in able and _reads(u, value, able[u])
        ]
    net.cast([_FLOAT], rounding, price)
