"""unquantize: activations become float again, with the ranges that their integers cover."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.data import Data
from qdqc.ir.graph import Graph
from qdqc.ir.op import Kind, Op
from qdqc.ir.types import Quant, Range, TensorType
from qdqc.ops import (
    Add,
    AveragePool,
    Clip,
    Concat,
    Dequantize,
    GlobalAveragePool,
    HardSigmoid,
    Identity,
    Mul,
    Quantize,
    Restate,
)
from qdqc.pipeline.pass_ import Pass, PassContext
from qdqc.quant.arithmetic import numbers, quant_range
from qdqc.quant.lines import line_of
from qdqc.quant.lowered import before_name, integers_name, view_name

__all__ = ["Unquantize"]

_DEPTH = 32
"""How far bounds of a value are looked for upwards."""


class Unquantize(Pass):
    """Turn quantized activations into float ones with ranges, so that a target can lay them anew.

    A value of scale s and zero point z gets the range [(qmin - z) s, (qmax - z) s], from which
    ``quantize`` finds the same s and z. Its integers saturate there, and so does the float value,
    by a clamp or a clip, where it could reach further: ``quantize`` takes these away again. What
    integers round is rounded no more. Weights stay integer, and so does every constant that is
    dequantized by a node of its own; biases and other constants become float.
    """

    name = "unquantize"

    def run(self, graph: Graph, ctx: PassContext) -> int:
        lines = sum(_join(n) for n in list(graph.nodes()) if isinstance(n.op, Restate))
        ends = _float_ends(graph)
        views: dict[Value, str] = {}
        casts = sum(_drop_view(n, views) for n in graph.nodes() if isinstance(n.op, Dequantize))
        casts += sum(_drop_cast(n, views) for n in graph.nodes() if isinstance(n.op, Quantize))
        constants = sum(_expand_constants(n) for n in graph.nodes())
        released = sum(_release(r) for n in graph.nodes() for r in n.present_results)
        ctx.statistics["values with ranges"] += released
        return lines + ends + casts + constants + released + graph.module.drop_unused_constants()


def _join(node: Node[Restate]) -> int:
    """restate(x) = x * c + d; with a number added, in integers of [0,1], it is a hard_sigmoid."""
    before, after = _quant(node.need("x")), _quant(node.result)
    if before is None or after is None:
        return 0
    if node.result.is_output:
        _split(node, node.result)
    x, result, scale = node.need("x"), node.result, float(after.scale)
    factor = scale / float(before.scale)
    offset = scale * (int(before.zero_point) - int(after.zero_point))
    reader = result.users[0] if len(result.uses) == 1 and offset == 0 else None
    line = None if reader is None else _line(reader, result, factor)
    if reader is not None and line is not None:
        reader.op = line
        reader.set_operands([x])
        node.graph.erase(node)
        return 1
    if offset == 0:
        _write(node, Mul(), x, factor)
        return 1
    if not np.isclose(factor, 1.0, rtol=1e-6):
        type_ = result.tensor.with_quant(result.tensor.elem, Quant.make(scale, before.zero_point))
        scaled = node.graph.insert(
            Restate(), [x], [type_], [None], loc=node.loc, mode=node.mode, before=node
        )
        _write(scaled, Mul(), x, factor)
        x = scaled.result
    _write(node, Add(), x, offset)
    return 1


def _write(node: Node[Any], op: Op, x: Value, number: float) -> None:
    """The node is now an op of x and a number."""
    module = node.graph.module
    by = module.add_constant(module.fresh_name("c"), Data.of(np.float32(number)))
    node.op = op
    node.set_operands([x, by])


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


def _drop_view(node: Node[Any], views: dict[Value, str]) -> int:
    """Let the readers of a float view read the integers, which become float themselves.

    ``views`` takes down the name of each first view, by its integers.
    """
    x, result = node.need("x"), node.result
    range_ = range_of(x)
    if range_ is None or isinstance(x, Constant):
        return 0
    if x.is_input:
        before, result.type = result.type, result.tensor.with_range(range_)
        return int(before != result.type)
    cast = x.producer is not None and isinstance(x.producer.op, Quantize)
    if result.is_output and cast:
        return 0
    if result.is_output and x.is_output:  # by another view
        node.op = Identity()
        return 1
    name, is_output = result.name, result.is_output
    result.replace_uses(x)
    node.graph.erase(node)
    if is_output:
        x.rename(name)
    views.setdefault(x, name)
    return 1


def _drop_cast(node: Node[Quantize], views: Mapping[Value, str]) -> int:
    """Let the readers of a quantize read what it quantizes, saturated as it does.

    Casts at the graph's ends stay. The values that become integers again take the cast's range.
    """
    x, result = node.need("x"), node.result
    range_ = range_of(result)
    if range_ is None:
        return 0
    readers = [use for use in result.uses if _reads_integers(use.user)]
    before, source = x.type, x
    if _quant(x) is None and x.range is None and _is_only_cast(x):
        x.type = x.tensor.with_range(_joint_range(x))
    if readers and not _is_within(x, range_, _step(result)):
        source = _clip(node, x, range_, views.get(result))
    for use in readers:
        use.take(source)
    if not result.is_used:
        node.graph.erase(node)
        return 1
    return int(bool(readers) or before != x.type)


def _clip(node: Node[Any], x: Value, range_: Range, name: str | None) -> Value:
    """What the integers saturate, by a clip in front of the node."""
    module = node.graph.module
    free = name is not None and module.value(name) is None
    typed = x.tensor.expressed().with_range(range_)
    clip = Clip(min=range_.min, max=range_.max)
    names = [name if free else module.fresh_name(name or f"{x.name}_clip")]
    mode = node.mode if x.producer is None else x.producer.mode
    made = node.graph.insert(clip, [x], [typed], names, loc=node.loc, mode=mode, before=node)
    return made.result


def _reads_integers(user: object) -> bool:
    return isinstance(user, Node) and not isinstance(user.op, Dequantize)


def _step(value: Value) -> float:
    """The scale of a value per tensor; 0 of another."""
    quant = _quant(value)
    return 0.0 if quant is None or quant.axis is not None else float(quant.scale)


def _is_only_cast(x: Value) -> bool:
    """Whether nobody reads a value but through integers."""
    return not x.is_output and all(isinstance(u.op, Quantize) for u in x.users)


def _joint_range(x: Value) -> Range | None:
    """The range that holds those of all integers of a value.

    None where it is much wider than one of them: its steps would be too wide for that one.
    """
    ranges = [r for u in x.users if (r := range_of(u.result)) is not None]
    low, high = min(r.min for r in ranges), max(r.max for r in ranges)
    if any(high - low > 2 * (r.max - r.min) for r in ranges):
        return None
    return Range(low, high, max(r.threshold for r in ranges))


def _is_within(value: Value, range_: Range, step: float) -> bool:
    """Whether a value lies in a range for certain, but for one step at most."""
    low, high = _bounds(value)
    return low >= range_.min - step and high <= range_.max + step


def _bounds(value: Value, depth: int = 0) -> tuple[float, float]:
    """Numbers between which a value lies for certain, zero among them where it may be padded."""
    range_, node = range_of(value), value.producer
    if range_ is not None:
        return range_.min, range_.max
    if node is None or depth > _DEPTH:
        return -math.inf, math.inf
    op, traits = node.op, node.traits
    if isinstance(op, Clip):
        return op.min, op.max
    if isinstance(op, Dequantize):
        return _bounds(node.need("x"), depth + 1)
    if op.clamp is not None:
        return op.clamp
    if traits.fixed is not None:
        return traits.fixed
    line = line_of(node)
    if line is not None:
        low, high = _bounds(line.source, depth + 1)
        return line.factor * low + line.offset, line.factor * high + line.offset
    between = isinstance(op, Concat | AveragePool | GlobalAveragePool)
    if not between and traits.kind is not Kind.PRESERVING:
        return (0.0, math.inf) if op.not_negative else (-math.inf, math.inf)
    read = node.present_operands if isinstance(op, Concat) else node.present_operands[:1]
    ends = [_bounds(v, depth + 1) for v in read]
    zero = [(0.0, 0.0)] if isinstance(op, AveragePool) else []
    lows, highs = zip(*ends, *zero, strict=True)
    return min(lows), max(highs)


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
    """A result becomes float and is clipped to what its integers covered."""
    range_, node, step = range_of(value), value.producer, _step(value)
    if range_ is None or node is None or isinstance(node.op, Quantize):
        return 0
    value.type = value.tensor.expressed()
    within = _is_within(value, range_, step)
    value.type = value.tensor.with_range(range_)
    if within:
        return 1
    if node.op.takes_clamp():
        low, high = node.op.clamp or (-math.inf, math.inf)
        bounds = (min(max(b, range_.min), range_.max) for b in (low, high))
        node.op = replace(node.op, clamp=tuple(bounds))
        return 1
    name, uses = value.name, value.uses
    value.rename(before_name(value.module, name))
    made = node.graph.insert(
        Clip(min=range_.min, max=range_.max),
        [value],
        [value.type],
        [name],
        loc=node.loc,
        mode=node.mode,
        before=node.next,
    )
    for use in uses:
        use.take(made.result)
    return 1
