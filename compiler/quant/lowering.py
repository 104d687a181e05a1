"""Spells out what quantized types say: every integer op becomes dequantize, op, quantize.

An integer convolution ``%y = conv(%x, %w, %b) : u8`` is written as ONNX knows it, a float
convolution between casts, which the runtimes fuse into the integer kernel again. The
dequantized result bears the value's name, or the integers where nobody reads it in float;
``lowered.py`` names the other parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.graph import Graph, Module
from qdqc.ops import CASTS, Dequantize, Gemm, Loop, MatMul, Quantize, Restate, Scan
from qdqc.quant.lowered import (
    Lowered,
    ValueParts,
    before_name,
    lowered_of,
    stored_name,
    view_name,
)

__all__ = ["has_quantized_activations", "is_lowered", "lower"]


def is_lowered(module: Module) -> bool:
    """Whether only casts touch quantized values, as the exporter wants it."""
    return not any(_touches_integers(n) for n in module.walk() if not isinstance(n.op, CASTS))


def lower(module: Module) -> Lowered:
    """Spell out all quantized types of the module in place; returns what values became."""
    if is_lowered(module):
        return lowered_of(module)
    return _Lowering(module).run()


def has_quantized_activations(module: Module) -> bool:
    """Whether values of the graph are integers with a scale; integer weights do not count."""
    values = (*module.graph.inputs, *(r for n in module.walk() for r in n.present_results))
    return any(v.quant is not None for v in values)


def _touches_integers(node: Node[Any]) -> bool:
    return any(v is not None and v.quant is not None for v in (*node.operands, *node.results))


class _Lowering:
    """Walks all graphs once. ``views`` holds the float view of every quantized value. What nested
    graphs read of them are constants.

    ``names`` are those of the values whose integers these are, before the module was lowered.
    """

    def __init__(self, module: Module) -> None:
        self.module = module
        self.graph: Graph = module.graph
        self.views: dict[Value, Value] = {}
        self.names: dict[Value, str] = {}
        self.before: dict[Value, Value] = {}
        self.merged: dict[str, Value] = {}
        self.changes = 0

    def run(self) -> Lowered:
        for node in self.module.walk():
            if node.graph is not self.graph:
                if not isinstance(node.op, CASTS) and _touches_integers(node):
                    self._lower_node(node)
            elif isinstance(node.op, Quantize | Restate):
                if node.result.quant is not None:
                    self.names[node.result] = node.result.name
            elif isinstance(node.op, Dequantize):
                self._merge_cast(node)
            elif _touches_integers(node):
                self._lower_node(node)
        for stored in self.before:
            self._name_unread(stored)
        return Lowered(self._parts(), self.changes)

    def _parts(self) -> dict[str, ValueParts]:
        parts: dict[str, ValueParts] = {}
        for stored, name in self.names.items():
            view, before = self.views.get(stored), self.before.get(stored)
            if view is None:
                views = (u.result for u in stored.users if isinstance(u.op, Dequantize))
                view = next(views, None)
            parts[name] = ValueParts(
                stored.name,
                None if view is None else view.name,
                None if before is None else before.name,
            )
        for name, stored in self.merged.items():
            parts.setdefault(name, parts[self.names[stored]])
        return parts

    def _name_unread(self, stored: Value) -> None:
        """Where no float view bears the name of a split result, an explicit cast or else the
        integers do.
        """
        name = self.names[stored]
        if self.module.value(name) is not None:
            return
        views = [u.result for u in stored.users if isinstance(u.op, Dequantize)]
        next((v for v in views if not v.is_output), stored).rename(name)

    def _merge_cast(self, node: Node[Any]) -> None:
        """An explicit dequantize becomes the float view, unless it says more than that."""
        source = node.operands[0]
        if source is None or node.op != Dequantize() or node.result.is_output:
            return
        self.merged[node.result.name] = source
        node.result.replace_uses(self._view(source, node))
        self.graph.erase(node)
        self.changes += 1

    def _lower_node(self, node: Node[Any]) -> None:
        for index, value in enumerate(node.operands):
            if value is not None and value.quant is not None:
                node.set_operand(index, self._view(value, node))
        for result in node.present_results:
            if result.quant is not None:
                self._split_result(node, result)
        self.changes += 1

    def _split_result(self, node: Node[Any], result: Value) -> None:
        """The node now gives floats; a quantize behind it gives the integers.

        Integers that the graph returns keep their name.
        """
        name, quantized, returned = result.name, result.tensor, result.is_output
        result.rename(before_name(self.module, name))
        result.type = quantized.expressed()
        uses = result.uses
        stored = self.graph.insert(
            Quantize(),
            [result],
            [quantized],
            [name if returned else stored_name(self.module, name)],
            loc=node.loc,
            before=node.next,
        ).result
        self.names[stored], self.before[stored] = name, result
        for use in uses:
            use.take(stored)

    def _view(self, stored: Value, before: Node[Any]) -> Value:
        """The float view of a quantized value, made where it is first read."""
        made = self.views.get(stored)
        if made is None:
            producer = stored.producer
            before = _place(stored, before)
            made = before.graph.insert(
                Dequantize(),
                [stored],
                [stored.tensor.expressed()],
                [self._view_name(stored)],
                loc=producer.loc if producer is not None else before.loc,
                before=before,
            ).result
            self.views[stored] = made
        return made

    def _view_name(self, stored: Value) -> str:
        name = self.names.setdefault(stored, stored.name)
        if stored in self.before and not stored.is_output:
            return name
        if isinstance(stored, Constant):
            stored.rename(stored_name(self.module, name))
            return name
        producer = stored.producer
        if producer is not None and isinstance(producer.op, Quantize) and not stored.is_output:
            # A value that is quantized at a border stays in float beside its view.
            name = producer.need("x").name
        return view_name(self.module, name)


def _place(stored: Value, first: Node[Any]) -> Node[Any]:
    """The node before which a view stands whose first reader this is.

    It is in the innermost graph that holds all readers, but in no body that is repeated: there it
    would be computed in every round. A nested product reads it from outside, as onnxruntime
    doesn't load a cast of a weight beside it.
    """
    chains = [list(_around(graph)) for graph in {node.graph for node in stored.users}]
    graph = next(g for g in chains[0] if all(g in chain for chain in chains))
    beside = {n.graph for n in stored.users if isinstance(n.op, MatMul | Gemm)}
    while graph.owner is not None and (graph in beside or isinstance(graph.owner.op, Loop | Scan)):
        graph = graph.owner.graph
    while first.graph is not graph:
        assert first.graph.owner is not None
        first = first.graph.owner
    return first


def _around(graph: Graph) -> Iterator[Graph]:
    """A graph and those that it is nested in, the innermost first."""
    yield graph
    while graph.owner is not None:
        graph = graph.owner.graph
        yield graph
