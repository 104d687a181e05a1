"""The head of a trial: a layer's piece of the float module, of which the layer becomes integer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.data import Data
from qdqc.ir.graph import Module
from qdqc.ir.op import Kind
from qdqc.ir.types import Quant, Range, Type
from qdqc.ops import Dequantize, Quantize
from qdqc.pipeline.manager import PassManager
from qdqc.quant.arithmetic import activation_quant, numbers
from qdqc.quant.lowered import stored_name
from qdqc.quant.targets.target import activations
from qdqc.rewrite.driver import erase_dead
from qdqc.runtime.sessions.shared_weights import Weights
from qdqc.search.trials.cut import Cuts, piece_of
from qdqc.search.trials.layers import Layer, Layers

__all__ = ["Head", "Setup", "Variant", "variant_name"]

Variant: TypeAlias = tuple[Quant, ...]
"""Scale and zero point of each value of ``Layer.ranged``."""


@dataclass(frozen=True, eq=False)
class Setup:
    """What all trials of a search share."""

    layers: Layers
    cuts: Cuts
    weights: Weights
    opset: int


def variant_name(name: str, number: int) -> str:
    """What a head calls a value of a variant."""
    return f"{name} variant {number}"


class Head:
    """A layer's piece in float, of which the layer itself becomes integer."""

    def __init__(self, setup: Setup, layer: Layer, ranges: Mapping[str, Range]) -> None:
        self._layers = setup.layers
        self._layer = layer
        self.module = piece_of(setup.layers.planned, setup.cuts.head(layer))
        for name, range_ in ranges.items():
            value = self.module.value(name)
            if value is not None:
                value.type = value.tensor.with_range(range_)

    def with_variants(self, variants: Sequence[Variant]) -> Module:
        """The module with an output for each variant of each value, in float numbers."""
        made: list[Value] = []
        for number, variant in enumerate(variants):
            make = self._integer if self._layer.integer else self._rounded
            made += make(number, variant)
        return self._giving(made)

    def with_parts(self, quants: Variant) -> tuple[list[str], Module]:
        """The kinds of rounding that the layer brings, and a module with an output for each.

        ``values`` rounds what the float node gives, ``weights`` lets it read rounded weights.
        """
        kinds: list[str] = []
        made: list[Value] = []
        weighted = self._layer.integer and self._kind is Kind.WEIGHTED
        integer = self._node if weighted else None
        if quants:
            node = self._float_node()
            pairs = zip(self._layer.values, quants, strict=True)
            made += [
                self._dequantized(self._quantized(_result(node, v, self.module), q), v, len(kinds))
                for v, q in pairs
            ]
            kinds.append("values")
        if integer is not None:
            made += self._with_rounded_weights(integer, len(kinds))
            kinds.append("weights")
        return kinds, self._giving(made)

    def _giving(self, made: list[Value]) -> Module:
        """The module with these outputs, beside those that only keep values whole."""
        graph = self.module.graph
        own = {v.name for v in self._layer.values}
        graph.set_outputs([*made, *(v for v in graph.outputs if v.name not in own)])
        erase_dead(reversed(list(graph.nodes())))
        return self.module

    def _float_node(self) -> Node[Any] | None:
        """The layer's node in float once more; None where its values are inputs."""
        source = self._layer.node
        if source is None or not self._layer.integer:
            return None
        names = [r and self.module.fresh_name(f"{r.name} float") for r in source.results]
        types = [r and r.type for r in source.results]
        return self.module.graph.insert(source.op, self._operands(source), types, names)

    def _with_rounded_weights(self, integer: Node[Any], number: int) -> list[Value]:
        """The layer's node in float, with the numbers that its integer constants stand for."""
        operands = list(self._operands(self._source))
        for index, value in enumerate(integer.operands):
            if isinstance(value, Constant):
                name = self.module.fresh_name(f"{value.name} rounded")
                data = Data.of(numbers(value))
                if index < len(operands):
                    operands[index] = self.module.add_constant(name, data)
                else:
                    operands += [None] * (index - len(operands))
                    operands.append(self.module.add_constant(name, data))
        types = [r and r.type for r in self._source.results]
        names = [r and self.module.fresh_name(f"{r.name} weights") for r in self._source.results]
        node = self.module.graph.insert(self._source.op, operands, types, names)
        return [
            self._dequantized(_result(node, v, self.module), v, number) for v in self._layer.values
        ]

    def _rounded(self, number: int, variant: Variant) -> list[Value]:
        """The float values rounded, at the place where integer nodes read them."""
        values = zip(self._layer.ranged, variant, strict=True)
        return [
            self._dequantized(self._quantized(_named(self.module, v.name), quant), v, number)
            for v, quant in values
        ]

    def _integer(self, number: int, variant: Variant) -> list[Value]:
        """The layer's node once more, with results of these scales."""
        node, graph = self._node, self.module.graph
        types = [self._type(node, index, variant) for index in range(len(node.results))]
        names = [r and self.module.fresh_name(f"{r.name} integer {number}") for r in node.results]
        made = graph.insert(node.op, node.operands, types, names, loc=node.loc)
        floats = {v.index: v for v in self._layer.values}
        return [
            self._dequantized(made.results[index], value, number) for index, value in floats.items()
        ]

    def _type(self, node: Node[Any], index: int, variant: Variant) -> Type | None:
        """The type of a result: integer with the variant's scale, or one that the op decides."""
        result = node.results[index]
        if result is None:
            return None
        decision = self._layers.decisions[self._source]
        positions = {v.index: p for p, v in enumerate(self._layer.values)}
        if index not in positions or not decision.result:
            return result.type
        if self._layer.ranged:
            quant = variant[positions[index]]
        elif own := self._layers.own_quants(self._layer, {}):
            quant = own[positions[index]]
        else:
            source = node.at(0)
            assert source is not None
            assert source.tensor.quant is not None
            quant = source.tensor.quant
        return result.tensor.expressed().with_quant(self._layers.target.activation, quant)

    @property
    def _kind(self) -> Kind:
        return self._layers.decisions[self._source].traits.kind

    @property
    def _source(self) -> Node[Any]:
        assert self._layer.node is not None
        return self._layer.node

    @cached_property
    def _node(self) -> Node[Any]:
        """The layer's node with integer operands; the model's own pass quantizes weights."""
        node = _named(self.module, self._layer.name).producer
        assert node is not None
        if self._kind is not Kind.WEIGHTED:
            for index in activations(node, self._layers.decisions[self._source].traits):
                value = node.operands[index]
                assert value is not None
                node.set_operand(index, self._stored(value))
            return node
        for other in self.module.graph.nodes():
            other.mode = "INT8" if other is node else "F32"
        corrected = _named(self._layers.corrected, self._layer.name).producer
        assert corrected is not None
        node.set_operands(self._operands(corrected))
        PassManager([self._layers.models.quantize_pass()], verify_each=False).run(self.module)
        made = _named(self.module, self._layer.name).producer
        assert made is not None
        if isinstance(made.op, Dequantize):
            made = made.need("x").producer
            assert made is not None
        return made

    def _operands(self, source: Node[Any]) -> list[Value | None]:
        """What a node of another module reads, in this one; constants come along."""
        return [
            self.module.add_constant(self.module.fresh_name(v.name), v.data, v.tensor)
            if isinstance(v, Constant)
            else v and _named(self.module, v.name)
            for v in source.operands
        ]

    def _stored(self, value: Value) -> Value:
        """The integer form of an activation operand."""
        range_ = value.tensor.range
        if isinstance(value, Constant):
            array = value.data.array()
            low, high = float(array.min(initial=0.0)), float(array.max(initial=0.0))
            range_ = Range(low, high, max(-low, high))
        assert range_ is not None
        symmetric = self._layers.models.deployment.symmetric
        quant = activation_quant(range_, self._layers.target.activation, symmetric=symmetric)
        return self._quantized(value, quant)

    def _quantized(self, value: Value, quant: Quant) -> Value:
        name = stored_name(self.module, value.name)
        type_ = value.tensor.with_quant(self._layers.target.activation, quant)
        producer = value.producer
        graph = self.module.graph
        place = next(graph.nodes(), None) if producer is None else producer.next
        return graph.insert(Quantize(), [value], [type_], [name], before=place).result

    def _dequantized(self, value: Value | None, like: Value, number: int) -> Value:
        """A value in float numbers, under the name of its variant."""
        assert value is not None
        name = variant_name(like.name, number)
        if value.tensor.quant is None:
            value.rename(name)
            return value
        return self.module.graph.insert(Dequantize(), [value], [like.tensor], [name]).result


def _named(module: Module, name: str) -> Value:
    value = module.value(name)
    assert value is not None, name
    return value


def _result(node: Node[Any] | None, like: Value, module: Module) -> Value:
    """The result of a node in the place of a value; the value of that name without a node."""
    if node is None:
        return _named(module, like.name)
    result = node.results[like.index]
    assert result is not None
    return result
