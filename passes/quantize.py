"""quantize: types become integer where the target runs integers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qdqc.diagnostics import QdqcError, suggestion
from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.data import Data
from qdqc.ir.graph import Graph, Module
from qdqc.ir.op import Kind, QuantTraits
from qdqc.ir.types import Array, Elem, Quant, Range, TensorType
from qdqc.ops import Conv, ConvTranspose, Dequantize, Quantize, Restate
from qdqc.pipeline.pass_ import Pass, PassContext
from qdqc.quant.arithmetic import (
    activation_quant,
    bias_floor,
    bias_quant,
    numbers,
    quantize,
    weight_quant,
)
from qdqc.quant.clips import absorb_clips, bounds_of
from qdqc.quant.lines import align, line_of
from qdqc.quant.lowered import integers_name, stored_name, view_name
from qdqc.quant.placement import Decision, decide, nested_decisions
from qdqc.quant.targets.target import Target, activations, target_named
from qdqc.quant.views import scale_axis

__all__ = ["QuantizePass"]

_SCHEMES = ("per-channel", "per-tensor")


class QuantizePass(Pass):
    """Give weights, biases and activations their integer types, as the target wants them.

    Weights are quantized per output channel with zero point 0, biases to int32 with scale
    ``s_x * s_w``, activations by their calibrated ranges. Times a positive number, or with one
    added, integers are the same under another scale or zero point (``restate``); a range is
    widened a little where the summand is then whole steps.
    """

    name = "quantize"

    target: str = "ort-cpu"
    scheme: str = "per-channel"
    symmetric: bool = False

    def run(self, graph: Graph, ctx: PassContext) -> int:
        target = target_named(self.target)
        if self.scheme not in _SCHEMES:
            raise QdqcError(
                f"unknown scheme '{self.scheme}'{suggestion(self.scheme, _SCHEMES)}",
                notes=[f"schemes are {', '.join(_SCHEMES)}"],
            )
        work = _Quantization(graph, target, self.symmetric, self.scheme == "per-channel")
        decisions = decide(graph, target)
        every = decisions | nested_decisions(graph, target)
        ctx.decisions = {node.name: decision for node, decision in every.items()}
        integer = work.run(decisions)
        ctx.statistics["integer nodes"] += integer
        ctx.statistics["casts"] += work.casts
        planned = [n for n in graph.walk() if n.mode is not None]
        for node in planned:
            node.mode = None
        retargeted = graph.module.header.get("target") != target.name
        graph.module.header["target"] = target.name
        return integer + work.others + len(planned) + retargeted


@dataclass
class _Quantization:
    """The state of one run: casts that were made, and ``others``, changes beside integer nodes."""

    graph: Graph
    target: Target
    symmetric: bool
    per_channel: bool
    casts: int = 0
    others: int = 0
    stored: dict[Value, Value] = field(default_factory=dict)
    constants: list[tuple[Constant, str]] = field(default_factory=list)
    floats: dict[Constant, Constant] = field(default_factory=dict)

    @property
    def module(self) -> Module:
        return self.graph.module

    def run(self, decisions: dict[Node[Any], Decision]) -> int:
        chosen = {n: d for n, d in decisions.items() if d.integer}
        if not self.symmetric:
            align({n: d.traits for n, d in chosen.items()}, self.target.activation)
        for node, decision in chosen.items():
            if self._restate(node):
                continue
            self._quantize_operands(node, decision.traits)
            if decision.result:
                self._quantize_result(node, decision.traits)
        for node in decisions:
            if node not in chosen:
                self._float_weight(node)
        self._dequantize_for_float(chosen)
        self.others += absorb_clips(self.graph)
        for node in list(self.graph.nodes()):
            self.others += self.target.spell(node)
        self._name_constants()
        return len(chosen)

    def _name_constants(self) -> None:
        """An integer constant takes the name of the float one where that is gone."""
        self.others += self.module.drop_unused_constants()
        for constant, name in self.constants:
            if self.module.value(name) is None:
                constant.rename(name)

    def _restate(self, node: Node[Any]) -> bool:
        """A line takes the integers of its operand as they are, if it can."""
        line, elem = line_of(node), self.target.activation
        if line is None or (self.symmetric and line.offset):
            return False
        x = line.source if line.source.quant is not None else self._stored(line.source, node)
        quant = None if x.tensor.quant is None else line.restated(x.tensor.quant, elem)
        if quant is None:
            return False
        result = node.result
        own = self._result_quant(node, result, QuantTraits())
        same = np.isclose(own.scale, quant.scale, rtol=1e-6) and own.zero_point == quant.zero_point
        if line.offset == 0 and same:
            quant = own  # a model that is requantized has the same scale to the last bit
        node.op = Restate()
        node.set_operands([x])
        result.type = result.tensor.with_quant(elem, quant)
        self.stored[result] = result
        return True

    def _quantize_operands(self, node: Node[Any], traits: QuantTraits) -> None:
        for index in activations(node, traits):
            value = node.operands[index]
            if value is not None and value.tensor.quant is None:
                node.set_operand(index, self._stored(value, node))
        if traits.kind is Kind.WEIGHTED:
            self._quantize_weight(node, traits)

    def _stored(self, value: Value, before: Node[Any]) -> Value:
        """The integer form of a float value; made once, where it is first needed."""
        made_before = self.stored.get(value)
        if made_before is not None:
            return made_before
        if isinstance(value, Constant):
            made: Value = self._stored_constant(value)
        else:
            range_ = value.tensor.range
            assert range_ is not None
            quant = activation_quant(range_, self.target.activation, symmetric=self.symmetric)
            type_ = value.tensor.with_quant(self.target.activation, quant)
            name = stored_name(self.module, value.name)
            after = value.producer.next if value.producer is not None else None
            place = after if after is not None else self._first_node(before, value)
            made = self.graph.insert(
                Quantize(), [value], [type_], [name], loc=before.loc, before=place
            ).result
            self.casts += 1
        self.stored[value] = made
        return made

    def _first_node(self, before: Node[Any], value: Value) -> Node[Any]:
        """Casts of graph inputs stand at the beginning."""
        return next(self.graph.nodes()) if value.producer is None else before

    def _stored_constant(self, value: Constant) -> Constant:
        array = value.data.array()
        low, high = float(array.min(initial=0.0)), float(array.max(initial=0.0))
        range_ = Range(low, high, max(-low, high))
        elem = self.target.activation
        quant = activation_quant(range_, elem, symmetric=self.symmetric)
        return self._constant(value, quantize(array, quant, elem), elem, quant)

    def _constant(self, like: Constant, array: Any, elem: Elem, quant: Quant) -> Constant:
        name = self.module.fresh_name(f"{like.name}_{elem.text}")
        type_ = TensorType(elem, like.tensor.shape, quant)
        made = self.module.add_constant(name, Data.of(array, elem), type_)
        self.constants.append((made, like.name))
        return made

    def _quantize_weight(self, node: Node[Any], traits: QuantTraits) -> None:
        assert traits.weight is not None
        weight, bias, x = node.at(traits.weight), node.at(traits.bias), node.at(0)
        assert isinstance(weight, Constant)
        assert x is not None
        assert x.tensor.quant is not None
        scale_x = x.tensor.quant.scale
        biases = numbers(bias) if isinstance(bias, Constant) else None
        quant = self._weight_scales(node, traits, weight, biases, scale_x)
        if biases is not None and traits.bias is not None and self.target.bias is not Elem.F32:
            assert isinstance(bias, Constant)
            scale = bias_quant(scale_x, quant)
            stored = quantize(biases, scale, self.target.bias)
            node.set_operand(traits.bias, self._constant(bias, stored, self.target.bias, scale))

    def _weight_scales(
        self,
        node: Node[Any],
        traits: QuantTraits,
        weight: Constant,
        biases: Array | None,
        scale_x: Any,
    ) -> Quant:
        """Quantize the weight, unless it is as the target wants it already; gives its scales."""
        assert traits.weight is not None
        axis = traits.axis if self.per_channel else None
        floor: Any = 0.0
        if biases is not None:
            floor = bias_floor(biases, float(scale_x))
            floor = floor if self.per_channel else floor.max(initial=0.0)
        stated, elem = weight.tensor.quant, self.target.weight
        if (
            stated is not None
            and self.target.keeps(weight, traits)
            and (stated.scale >= floor).all()
        ):
            return stated
        array = numbers(weight)
        quant = weight_quant(array, axis, self.target.weight_limit, floor=floor)
        integers = quantize(array, quant, elem, narrow=True)
        node.set_operand(traits.weight, self._constant(weight, integers, elem, quant))
        return quant

    def _float_weight(self, node: Node[Any]) -> None:
        """A product that stays F32 reads floats, also where tuning stored its weight as integers.

        Behind a cast no float kernel takes a weight as it is: it is cast in every run. Products of
        other modes keep it, but for a convolution, which has no kernel for stored weights.
        """
        traits = node.traits
        weight = node.at(traits.weight)
        if traits.kind is not Kind.WEIGHTED or not isinstance(weight, Constant):
            return
        stays = node.mode == "F32" or (
            node.mode == "INT8" and isinstance(node.op, Conv | ConvTranspose)
        )
        if weight.quant is None or not stays:
            return
        assert traits.weight is not None
        if weight not in self.floats:
            name = self.module.fresh_name(f"{weight.name}_float")
            data = Data.of(np.asarray(numbers(weight), np.float32))
            self.floats[weight] = self.module.add_constant(name, data)
        node.set_operand(traits.weight, self.floats[weight])
        self.others += 1

    def _quantize_result(self, node: Node[Any], traits: QuantTraits) -> None:
        elem = self.target.activation
        for result in node.present_results:
            if result.tensor.elem is not Elem.F32:
                continue  # the indices of a max_pool
            if traits.kind is Kind.PRESERVING:
                source = node.operands[0]
                assert source is not None
                assert source.tensor.quant is not None
                quant = source.tensor.quant
            else:
                quant = self._result_quant(node, result, traits)
            result.type = result.tensor.with_quant(elem, quant)
            self.stored[result] = result

    def _result_quant(self, node: Node[Any], result: Value, traits: QuantTraits) -> Quant:
        range_ = result.tensor.range
        if traits.fixed is not None:
            low, high = traits.fixed
            range_ = Range(low, high, max(abs(low), abs(high)))
        assert range_ is not None
        clamp = bounds_of(node)
        elem = self.target.activation
        return activation_quant(range_, elem, symmetric=self.symmetric, clamp=clamp)

    def _dequantize_for_float(self, chosen: dict[Node[Any], Decision]) -> None:
        """Readers that stay float, and graph outputs, get the numbers back."""
        for node in chosen:
            for result in node.present_results:
                if result.tensor.quant is not None:
                    self._float_readers(node, result, chosen)

    def _float_readers(
        self, node: Node[Any], result: Value, chosen: dict[Node[Any], Decision]
    ) -> None:
        outside = [u for u in result.uses if u.user not in chosen]
        if not outside:
            return
        name = result.name
        if result.is_output:
            result.rename(integers_name(self.module, name))
        views: dict[Dequantize, Value] = {}
        for use in outside:
            op = Dequantize(axis=scale_axis(use.user, result))
            if op not in views:
                is_free = self.module.value(name) is None
                place = name if is_free else view_name(self.module, name)
                made = self.graph.insert(
                    op,
                    [result],
                    [result.tensor.expressed()],
                    [place],
                    loc=node.loc,
                    before=node.next,
                )
                views[op] = made.result
                self.casts += 1
            use.take(views[op])
