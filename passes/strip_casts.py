"""strip-casts: a graph takes and gives integers, without the casts at its border."""

from __future__ import annotations

from qdqc.ir.core import Value
from qdqc.ir.graph import Graph
from qdqc.ir.types import Elem, Range, TensorType
from qdqc.ops import Cast, Dequantize, Quantize
from qdqc.pipeline.pass_ import Pass, PassContext
from qdqc.quant.arithmetic import activation_quant
from qdqc.quant.lowered import before_name, view_name
from qdqc.quant.targets.target import target_named
from qdqc.quant.views import scale_axis

__all__ = ["StripCasts"]


class StripCasts(Pass):
    """Let graph inputs and outputs be the integers that the casts at the border make of them.

    An input whose readers quantize it alike takes the integers; readers that want floats get
    them by a cast. An output that a cast gives is the integers before it. An input that is read
    in float alone, and an output that a kernel gives in float, are quantized by their calibrated
    ranges. What has no scale stays float, with a warning. Names stay. An input or output that is
    a cast away from f32 counts as f32.
    """

    name = "strip-casts"

    inputs: bool = False
    outputs: bool = False
    target: str = "ort-cpu"
    symmetric: bool = False

    def run(self, graph: Graph, ctx: PassContext) -> int:
        changes = 0
        if self.inputs:
            for value in graph.inputs:
                _widen_input(value)
            changes += sum(self._strip_input(v, graph, ctx) for v in graph.inputs if _is_float(v))
        if self.outputs:
            for index in range(len(graph.outputs)):
                _widen_output(graph, index)
            indices = [i for i, v in enumerate(graph.outputs) if _is_float(v)]
            changes += sum(self._strip_output(graph, i, ctx) for i in indices)
        ctx.statistics["borders in integers"] += changes
        return changes

    def _strip_input(self, value: Value, graph: Graph, ctx: PassContext) -> int:
        casts = [u for u in value.users if isinstance(u.op, Quantize)]
        types = [c.result.tensor for c in casts]
        if not casts and value.tensor.range is not None:
            types = [self._quantized(value, value.tensor.range)]
        if len({(t.elem, t.quant) for t in types}) != 1:
            why = "it has no calibrated range" if not types else "it is quantized in several ways"
            ctx.warn(f"input '{value.name}' stays float: {why}")
            return 0
        floats = value.tensor
        others = [use for use in value.uses if use.user not in casts]
        for cast in casts:
            cast.result.replace_uses(value)
            graph.erase(cast)
        value.type = types[0]
        views: dict[Dequantize, Value] = {}
        for use in others:
            op = Dequantize(axis=scale_axis(use.user, value))
            if op not in views:
                name = view_name(graph.module, value.name)
                first = next(graph.nodes())
                views[op] = graph.insert(
                    op, [value], [floats], [name], loc=first.loc, before=first
                ).result
            use.take(views[op])
        return 1

    def _quantized(self, value: Value, range_: Range) -> TensorType:
        """The type of the integers that a float value of this range is rounded to."""
        elem = target_named(self.target).activation
        quant = activation_quant(range_, elem, symmetric=self.symmetric)
        return value.tensor.with_quant(elem, quant)

    def _strip_output(self, graph: Graph, index: int, ctx: PassContext) -> int:
        value, module = graph.outputs[index], graph.module
        name, producer = value.name, value.producer
        if producer is not None and isinstance(producer.op, Dequantize):
            stored = producer.need("x")
            if stored.is_output or stored.is_input:
                return 0
            graph.set_output(index, stored)
            value.rename(view_name(module, name))
            if not value.is_used:
                graph.erase(producer)
            stored.rename(name)
            return 1
        range_ = value.tensor.range
        if range_ is None or value.is_input:
            ctx.warn(f"output '{name}' stays float: it has no calibrated range")
            return 0
        value.rename(before_name(module, name))
        after = None if producer is None else producer.next
        integers = self._quantized(value, range_)
        stored = graph.insert(Quantize(), [value], [integers], [name], before=after).result
        graph.set_output(index, stored)
        return 1


def _is_float(value: Value) -> bool:
    return value.tensor.elem is Elem.F32 and value.tensor.quant is None


def _widen_input(value: Value) -> None:
    """Take an f16 input as f32 where that is what its readers quantize."""
    casts = [u for u in value.users if isinstance(u.op, Cast) and _is_float(u.result)]
    quantized = any(isinstance(u.op, Quantize) for c in casts for u in c.result.users)
    if not quantized or len(casts) < len(value.uses) or not value.is_float:
        return
    value.type = casts[0].result.type
    for cast in casts:
        cast.result.replace_uses(value)
        cast.graph.erase(cast)


def _widen_output(graph: Graph, index: int) -> None:
    """Give an f16 output as f32 where it is a cast of what has integers or a range."""
    value, name = graph.outputs[index], graph.outputs[index].name
    cast = value.producer
    if cast is None or not isinstance(cast.op, Cast) or len(value.uses) > 1 or not value.is_float:
        return
    x = cast.need("x")
    made_of_integers = x.producer is not None and isinstance(x.producer.op, Dequantize)
    if not _is_float(x) or x.is_output or x.is_input or not (made_of_integers or x.range):
        return
    graph.set_output(index, x)
    graph.erase(cast)
    x.rename(name)
