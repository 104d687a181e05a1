"""unquantize: activations become float again, with the ranges that their integers cover."""

from __future__ import annotations

from typing import Any

import numpy as np

from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.data import Data
from qdqc.ir.graph import Graph
from qdqc.ir.types import Quant, Range, TensorType
from qdqc.ops import Add, Dequantize, HardSigmoid, Mul, Quantize, Restate
from qdqc.pipeline.pass_ import Pass, PassContext
from qdqc.quant.arithmetic import numbers, quant_range
from qdqc.quant.lowered import before_name, integers_name, view_name

__all__ = ["Unquantize"]


class Unquantize(Pass):
    """Turn quantized activations into float ones with ranges, so that a target can lay them anew.

    A value of scale s and zero point z gets the range [(qmin - z) s, (qmax - z) s], from which
    ``quantize`` finds the same s and z. Weights stay integer, and so does every constant that is
    dequantized by a node of its own; biases and other constants become float. Where several
    casts give one value different scales, the widest range counts.
    """

    name = "unquantize"

    def run(self, graph: Graph, ctx: PassContext) -> int:
        lines = sum(_join(n) for n in list(graph.nodes()) if isinstance(n.op, Restate))
        ends = _float_ends(graph)
        scaled: dict[Value, Range] = {}
        casts = sum(_drop_view(n) for n in graph.nodes() if isinstance(n.op, Dequantize))
        casts += sum(_drop_cast(n, scaled) for n in graph.nodes() if isinstance(n.op, Quantize))
        constants = sum(_expand_constants(n) for n in graph.nodes())
        released = sum(_release(r) for n in graph.nodes() for r in n.present_results)
        ctx.statistics["values with ranges"] += released
        return lines + ends + casts + constants + released + graph.module.drop_unused_constants()


def _join(node: Node[Restate]) -> int:
    """restate(x) = x * c; with a number added, in integers of [0,1], it is a hard_sigmoid."""
    x, result = node.need("x"), node.result
    before, after = _quant(x), _quant(result)
    if before is None or after is None or result.is_output:
        return 0
    factor = float(after.scale) / float(before.scale)
    reader = result.users[0] if len(result.uses) == 1 else None
    line = None if reader is None else _line(reader, result, factor)
    module = node.graph.module
    if reader is not None and line is not None:
        made = node.graph.insert(
            line, [x], [reader.result.type], [module.fresh_name("line")], before=reader
        )
        made.loc, made.mode, name = reader.loc, reader.mode, reader.name
        reader.result.replace_uses(made.result)
        node.graph.erase(reader)
        made.result.rename(name)
    else:
        by = module.add_constant(module.fresh_name("c"), Data.of(np.float32(factor)))
        made = node.graph.insert(Mul(), [x, by], [result.type], [None], loc=node.loc, before=node)
        result.replace_uses(made.result)
    node.graph.erase(node)
    return 1


def _line(node: Node[Any], inner: Value, factor: float) -> HardSigmoid | None:
    """The hard_sigmoid that adding a number to a x is, where integers saturate at 0 and 1."""
    range_ = range_of(node.result)
    others = [v for v in node.operands if v is not inner]
    if not isinstance(node.op, Add) or range_ is None or len(others) != 1:
        return None
    number = others[0]
    if not isinstance(number, Constant) or number.data.is_elided or number.data.shape:
        return None
    if range_.min != 0 or not np.isclose(range_.max, 1.0, rtol=1e-6):
        return None
    return HardSigmoid(alpha=factor, beta=float(numbers(number)))


def _float_ends(graph: Graph) -> int:
    """Integer inputs get a dequantize behind them, integer outputs a quantize before them."""
    changes = 0
    for value in graph.inputs:
        readers = [u for u in value.users if not isinstance(u.op, Dequantize)]
        if range_of(value) is None or not readers:
            continue
        name = view_name(graph.module, value.name)
        first, type_ = next(graph.nodes()), value.tensor.expressed()
        made = graph.insert(Dequantize(), [value], [type_], [name], loc=first.loc, before=first)
        value.replace_uses(made.result, keep=[made, *(u for u in value.users if u not in readers)])
        changes += 1
    for value in graph.outputs:
        node = value.producer
        if node is None or isinstance(node.op, Quantize) or range_of(value) is None:
            continue
        _split(node, value)
        changes += 1
    return changes


def _split(node: Node[Any], value: Value) -> None:
    """The node's result, under a new name, and a quantize that bears the output's."""
    name, module = value.name, value.module
    value.rename(integers_name(module, name))
    cast = node.graph.insert(
        Quantize(), [value], [value.tensor], [name], loc=node.loc, before=node.next
    )
    readers = [u for u in value.users if u is not cast]
    value.replace_uses(cast.result, keep=[cast, *readers])


def _quant(value: Value) -> Quant | None:
    return value.type.quant if isinstance(value.type, TensorType) else None


def _drop_view(node: Node[Dequantize]) -> int:
    """Let the readers of a float view read the integers, which become float themselves."""
    x, result = node.need("x"), node.result
    range_ = range_of(x)
    if range_ is None or isinstance(x, Constant):
        return 0
    if x.is_input:
        before, result.type = result.type, result.tensor.with_range(range_)
        return int(before != result.type)
    cast = x.producer is not None and isinstance(x.producer.op, Quantize)
    if result.is_output and (cast or x.is_output):
        return 0
    name, is_output = result.name, result.is_output
    result.replace_uses(x)
    node.graph.erase(node)
    if is_output:
        x.rename(name)
    return 1


def _drop_cast(node: Node[Quantize], scaled: dict[Value, Range]) -> int:
    """Let the readers of a quantize read what it quantizes; casts at the graph's ends stay.

    ``scaled`` holds the ranges that casts have given to float values so far.
    """
    x, result = node.need("x"), node.result
    range_ = range_of(result)
    if range_ is None:
        return 0
    widest = scaled.get(x, range_)
    scaled[x] = Range(
        min(widest.min, range_.min),
        max(widest.max, range_.max),
        max(widest.threshold, range_.threshold),
    )
    before, x.type = x.type, x.tensor.with_range(scaled[x])
    readers = 0
    for use in result.uses:
        if isinstance(use.user, Node) and not isinstance(use.user.op, Dequantize):
            use.user.set_operand(use.index, x)
            readers += 1
    if not result.is_used:
        node.graph.erase(node)
        return 1
    return int(readers > 0 or before != x.type)


def _expand_constants(node: Node[Any]) -> int:
    """Constants in float, save weights and what a dequantize of its own reads."""
    if isinstance(node.op, Dequantize):
        return 0
    weight = node.traits.weight
    changes = 0
    for index, value in enumerate(node.operands):
        quant = None if value is None else _quant(value)
        if index == weight or quant is None or not isinstance(value, Constant):
            continue
        if value.data.is_elided:
            continue
        module = node.graph.module
        name = before_name(module, value.name)
        node.set_operand(index, module.add_constant(name, Data.of(numbers(value))))
        changes += 1
    return changes


def range_of(value: Value) -> Range | None:
    """The range that a quantized activation covers; None where it has several scales."""
    quant = _quant(value)
    if quant is None or quant.axis is not None or not value.tensor.elem.is_integer:
        return None
    return quant_range(quant, value.tensor.elem)


def _release(value: Value) -> int:
    range_ = range_of(value)
    cast = value.producer is not None and isinstance(value.producer.op, Quantize)
    if range_ is None or cast:
        return 0
    value.type = value.tensor.expressed().with_range(range_)
    return 1
