"""Spells out what quantized types say: every integer op becomes dequantize, op, quantize.

An integer convolution ``%y = conv(%x, %w, %b) : u8`` is written as ONNX knows it, a float
convolution between casts, which the runtimes fuse into the integer kernel again. The
dequantized result bears the value's name, the integer tensor is ``{name}_q``, the op's float
result before it ``{name}_f``.
"""

from __future__ import annotations

from typing import Any

from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.graph import Graph, Module
from qdqc.ir.types import TensorType
from qdqc.ops import CASTS, Dequantize, Quantize, Restate

__all__ = ["has_quantized_activations", "is_lowered", "lower"]


def is_lowered(module: Module) -> bool:
    """Whether only casts touch quantized values, as the exporter wants it."""
    return not any(_touches_integers(n) for n in module.walk() if not isinstance(n.op, CASTS))


def lower(module: Module) -> int:
    """Spell out all quantized types of the module in place; returns the number of nodes."""
    if is_lowered(module):
        return 0
    return _Lowering(module).run()


def has_quantized_activations(module: Module) -> bool:
    """Whether values of the graph are integers with a scale; integer weights do not count."""
    values = (*module.graph.inputs, *(r for n in module.walk() for r in n.present_results))
    return any(_is_quantized(v) for v in values)


def _is_quantized(value: Value | None) -> bool:
    return value is not None and isinstance(value.type, TensorType) and value.type.quant is not None


def _touches_integers(node: Node[Any]) -> bool:
    return any(_is_quantized(v) for v in (*node.operands, *node.results))


class _Lowering:
    """Walks the top graph once. ``views`` holds the float view of every quantized value."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.graph: Graph = module.graph
        self.views: dict[Value, Value] = {}
        self.split_names: dict[Value, str] = {}
        self.changes = 0

    def run(self) -> int:
        for node in self.graph.nodes():
            if isinstance(node.op, Quantize | Restate):
                continue
            if isinstance(node.op, Dequantize):
                self._merge_cast(node)
            elif _touches_integers(node):
                self._lower_node(node)
        for stored, name in self.split_names.items():
            self._name_view(stored, name)
        return self.changes

    def _name_view(self, stored: Value, name: str) -> None:
        """Let an explicit cast bear the value's name where no other view does."""
        views = [u.result for u in stored.users if isinstance(u.op, Dequantize)]
        if self.module.value(name) is None and views and not views[0].is_output:
            views[0].rename(name)

    def _merge_cast(self, node: Node[Any]) -> None:
        """An explicit dequantize becomes the float view, unless it says more than that."""
        source = node.operands[0]
        if source is None or node.op != Dequantize() or node.result.is_output:
            return
        node.result.replace_uses(self._view(source, node))
        self.graph.erase(node)
        self.changes += 1

    def _lower_node(self, node: Node[Any]) -> None:
        for index, value in enumerate(node.operands):
            if value is not None and _is_quantized(value):
                node.set_operand(index, self._view(value, node))
        for result in node.present_results:
            if _is_quantized(result):
                self._split_result(node, result)
        self.changes += 1

    def _split_result(self, node: Node[Any], result: Value) -> None:
        """The node now gives float ``{name}_f``; a quantize behind it gives ``{name}_q``.

        Integers that the graph returns keep their name.
        """
        name, quantized, returned = result.name, result.tensor, result.is_output
        result.rename(self.module.fresh_name(f"{name}_f"))
        result.type = quantized.expressed()
        uses = result.uses
        stored = self.graph.insert(
            Quantize(),
            [result],
            [quantized],
            [name if returned else self.module.fresh_name(f"{name}_q")],
            loc=node.loc,
            before=node.next,
        ).result
        if not returned:
            self.split_names[stored] = name
        for use in uses:
            use.take(stored)

    def _view(self, stored: Value, before: Node[Any]) -> Value:
        """The float view of a quantized value, made where it is first read."""
        held = self.views.get(stored)
        if held is not None:
            return held
        name = self._view_name(stored)
        producer = stored.producer
        node = self.graph.insert(
            Dequantize(),
            [stored],
            [stored.tensor.expressed()],
            [name],
            loc=producer.loc if producer is not None else before.loc,
            before=before,
        )
        self.views[stored] = node.result
        return node.result

    def _view_name(self, stored: Value) -> str:
        if stored in self.split_names:
            return self.split_names[stored]
        if isinstance(stored, Constant):
            name = stored.name
            stored.rename(self.module.fresh_name(f"{name}_q"))
            return name
        base, producer = stored.name, stored.producer
        if producer is not None and isinstance(producer.op, Quantize) and not stored.is_output:
            # A value that is quantized at a border stays in float beside its view.
            base = producer.need("x").name
        return self.module.fresh_name(f"{base}_dq")
