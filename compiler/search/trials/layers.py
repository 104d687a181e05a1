"""What a search looks at: the values that deployment rounds, each with what makes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qdqc.calibration.table import Table
from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.graph import Module
from qdqc.ir.op import Kind
from qdqc.ir.types import Elem, Quant, Range
from qdqc.quant.arithmetic import activation_quant
from qdqc.quant.placement import Decision, decide
from qdqc.quant.targets.target import Target, activations, target_named
from qdqc.search.trials.mixed_models import MixedModels

__all__ = ["Layer", "Layers", "ranges_of"]


@dataclass(frozen=True, eq=False)
class Layer:
    """A graph input or a node, in the module as it was planned for deployment.

    An ``integer`` one runs in integers. The others stay float, and their values alone are
    rounded, where ``readers`` take them in integers. ``ranged`` are the values whose scale
    their own range decides: a method may be chosen for them.
    """

    name: str
    op: str
    node: Node[Any] | None
    integer: bool
    values: tuple[Value, ...]
    ranged: tuple[Value, ...]
    readers: tuple[Node[Any], ...] = ()

    @property
    def key(self) -> str:
        """The name, told apart from that of values that the same node gives in float."""
        return self.name if self.integer else f"values of {self.name}"


class Layers:
    """The layers of a deployment in graph order, and which of them change together.

    ``planned`` is the module before anything in it is integer, ``corrected`` the same with the
    biases that integer nodes get. A node that neither runs in
    integers nor makes what an integer node reads is no layer. ``integer`` are those that a
    qtable can name: parts that deployment makes of a node are layers, but follow that node.
    """

    def __init__(self, models: MixedModels, table: Table) -> None:
        self.models = models
        self.planned: Module = models.planned(table)
        self.corrected: Module = models.corrected(table)
        self.target: Target = target_named(models.deployment.target)
        self.decisions = decide(self.planned.graph, self.target)
        self._readers = self._integer_readers()
        graph = self.planned.graph
        self._owner = _owners(self.planned, models.module)
        self.every = [
            *(layer for v in graph.inputs for layer in self._rounded(v.name, "input", None, v)),
            *(layer for n in graph.nodes() for layer in self._of_node(n)),
        ]
        own = set(self._owner.values())
        self.integer = [layer for layer in self.every if layer.integer and layer.name in own]

    def owner(self, node: Node[Any]) -> str:
        """The name that a qtable knows a planned node by."""
        return self._owner[node]

    def kind(self, layer: Layer) -> Kind | None:
        """How quantization sees the node of an integer layer; None for any other."""
        return self.decisions[layer.node].traits.kind if layer.integer and layer.node else None

    def quant(self, layer: Layer, range_: Range) -> Quant:
        """Scale and zero point that a range gives to values of a layer, as deployment does."""
        clamp = layer.node.op.clamp if layer.node and layer.integer else None
        symmetric = self.models.deployment.symmetric
        return activation_quant(range_, self.target.activation, symmetric=symmetric, clamp=clamp)

    def own_quants(self, layer: Layer, ranges: Mapping[str, Range]) -> tuple[Quant, ...]:
        """The scale of each value of a layer, by its range or as the op bounds it.

        Empty where there is none: the result stays float, or has the scale of an operand.
        """
        decision = self.decisions[layer.node] if layer.node is not None else None
        if layer.ranged or decision is None or decision.traits.fixed is None:
            return tuple(self.quant(layer, ranges[v.name]) for v in layer.ranged)
        low, high = decision.traits.fixed
        bounds = Range(low, high, max(abs(low), abs(high)))
        return tuple(self.quant(layer, bounds) for _ in layer.values if decision.result)

    def parts_with(self, floats: frozenset[str]) -> list[str]:
        """What is rounded when some nodes stay float: ``weights N`` and ``values N`` of nodes."""
        parts: dict[str, None] = {}
        for node, decision in self.decided(floats).items():
            if not decision.integer:
                continue
            if decision.traits.kind is Kind.WEIGHTED:
                parts[f"weights {node.name}"] = None
            read = [node.operands[index] for index in activations(node, decision.traits)]
            made = list(node.present_results) if decision.result else []
            for value in (*read, *made):
                if value is not None and not isinstance(value, Constant):
                    parts[f"values {self._source(value)}"] = None
        return list(parts)

    def _source(self, value: Value) -> str:
        """The name of the layer whose elements a value has: what only moves them rounds none."""
        node = value.producer
        while node is not None and self.decisions[node].traits.kind is Kind.PRESERVING:
            source = node.at(0)
            if source is None or isinstance(source, Constant):
                break
            value, node = source, source.producer
        return node.name if node is not None else value.name

    def integer_without(self, floats: frozenset[str]) -> frozenset[str]:
        """Names of the nodes that still run in integers when those of ``floats`` stay float."""
        return frozenset(n.name for n, d in self.decided(floats).items() if d.integer)

    def decided(self, floats: frozenset[str]) -> dict[Node[Any], Decision]:
        """The placement when the nodes of these names stay float."""
        fp_type = self.models.fp_type
        modes = {n: fp_type for n, owner in self._owner.items() if owner in floats}
        return decide(self.planned.graph, self.target, modes)

    def moved_with(self, floats: frozenset[str]) -> frozenset[str]:
        """The nodes that leave the integers when those of ``floats`` stay float, and these.

        Placement says it: an Add between a Conv that goes float and another float node, say,
        or an activation behind it, is integer no longer.
        """
        return frozenset(layer.name for layer in self.integer) - self.integer_without(floats)

    def neighbours(self) -> list[frozenset[str]]:
        """Pairs of integer nodes of which one reads what the other makes in integers."""
        pairs: dict[frozenset[str], None] = {}
        for value, readers in self._readers.items():
            maker = value.producer
            if maker is not None and self.decisions[maker].integer:
                owners = (frozenset({self._owner[maker], self._owner[n]}) for n in readers)
                pairs.update(dict.fromkeys(pair for pair in owners if len(pair) > 1))
        return list(pairs)

    def _integer_readers(self) -> Mapping[Value, list[Node[Any]]]:
        readers_of: dict[Value, list[Node[Any]]] = {}
        for node, decision in self.decisions.items():
            for index in activations(node, decision.traits) if decision.integer else ():
                value = node.operands[index]
                if value is not None and not isinstance(value, Constant):
                    readers = readers_of.setdefault(value, [])
                    if node not in readers:
                        readers.append(node)
        return readers_of

    def _rounded(self, name: str, op: str, node: Node[Any] | None, *values: Value) -> list[Layer]:
        """The layer of values that are float but where integer nodes read them, if they do."""
        read = tuple(v for v in values if v in self._readers)
        readers = tuple(dict.fromkeys(n for v in read for n in self._readers[v]))
        return [Layer(name, op, node, False, read, read, readers)] if read else []

    def _of_node(self, node: Node[Any]) -> list[Layer]:
        """A product whose result stays float is one layer, and what reads the result another."""
        decision, op = self.decisions[node], node.op.name
        floats = tuple(r for r in node.present_results if _is_float(r))
        if not decision.integer:
            return self._rounded(node.name, op, node, *floats)
        if not decision.result:
            layer = Layer(node.name, op, node, True, floats, ())
            return [layer, *self._rounded(node.name, op, node, *floats)]
        shared = decision.traits.kind is Kind.PRESERVING or decision.traits.fixed is not None
        return [Layer(node.name, op, node, True, floats, () if shared else floats)]


def _owners(planned: Module, module: Module) -> dict[Node[Any], str]:
    """The name of the module's node that each planned one is, or is a part of."""
    names = {node.name for node in module.graph.nodes()}
    places = {node.loc.names: node.name for node in module.graph.nodes()}
    nodes = planned.graph.nodes()
    return {n: n.name if n.name in names else places.get(n.loc.names, n.name) for n in nodes}


def _is_float(value: Value) -> bool:
    return value.elem is Elem.F32


def ranges_of(module: Module) -> dict[str, Range]:
    """The calibrated ranges of the values of a planned module, by name."""
    graph = module.graph
    values = (*graph.inputs, *(r for n in graph.nodes() for r in n.present_results))
    return {v.name: v.range for v in values if v.range is not None}
