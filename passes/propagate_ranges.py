"""propagate-ranges: what ops say of ranges, through the graph and back."""

from __future__ import annotations

import math
from typing import Any

from qdqc.ir.core import Node, Value
from qdqc.ir.graph import Graph
from qdqc.ir.live import live_domains
from qdqc.ir.op import Kind
from qdqc.ir.types import Elem, Range
from qdqc.ops import AveragePool, Clip, Concat, GlobalAveragePool, Relu
from qdqc.pipeline.pass_ import Pass, PassContext

__all__ = ["PropagateRanges"]

_WITHIN_OPERAND = (AveragePool, GlobalAveragePool)
"""A mean lies between the extremes; padding counts as zero, which every range holds."""

_POSITIVE = (0.0, math.inf)


class PropagateRanges(Pass):
    """Complete and tighten calibrated ranges by what the ops say of them.

    Forward: a bounded op (softmax, sigmoid) has the range of its bounds, a clamp and a sign cut
    a range, what only moves values has its operand's range, and a value without a range takes
    the one that its operands imply. Backward: a value's range ends where none of its readers tells
    numbers apart (relu, clip, hard_swish, hard_sigmoid, also behind what only moves elements), and
    where one node alone reads it and hands on less (max_pool, slice, gather), the value takes the
    narrower range: its integers need not reach further. Values without any range stay so.
    """

    name = "propagate-ranges"

    def run(self, graph: Graph, ctx: PassContext) -> int:
        before = {v: v.range for v in _values(graph)}
        for value, domain in live_domains(graph).items():
            if value.range is not None:
                _give(value, _cut(value.range, *domain))
        for node in reversed(list(graph.nodes())):  # first: forward widens what a pool narrowed
            _backward(node)
        for node in graph.nodes():
            _forward(node)
        changed = [v for v, range in before.items() if v.range != range]
        ctx.statistics["ranges given"] += sum(before[v] is None for v in changed)
        ctx.statistics["ranges changed"] += sum(before[v] is not None for v in changed)
        return len(changed)


def _values(graph: Graph) -> list[Value]:
    return [*graph.inputs, *(r for n in graph.nodes() for r in n.present_results)]


def _give(value: Value, range: Range) -> None:
    value.type = value.tensor.with_range(range)


def _forward(node: Node[Any]) -> None:
    """Ranges of the results from those of the operands, and from what the op itself says."""
    traits = node.traits
    for result in node.present_results:
        if result.elem is not Elem.F32:
            continue
        if traits.fixed is not None:
            _give(result, _between(*traits.fixed))
            continue
        x = node.at(0)
        source = None if x is None else x.range
        if traits.kind is Kind.PRESERVING and source is not None:
            _give(result, source)
            continue
        range = result.range if result.range is not None else _implied(node)
        bounds = _bounds(node)
        if range is not None:
            _give(result, range if bounds is None else _clipped(range, *bounds))


def _implied(node: Node[Any]) -> Range | None:
    """A range that holds for certain where none was calibrated; None where it would be a guess."""
    operands = [v.range for v in node.present_operands]
    known = [r for r in operands if r is not None]
    if not known or len(known) < len(operands):
        return None
    if isinstance(node.op, Concat):
        lows, highs, thresholds = zip(*((r.min, r.max, r.threshold) for r in known), strict=True)
        return Range(min(lows), max(highs), max(thresholds))
    return known[0] if isinstance(node.op, (*_WITHIN_OPERAND, Relu, Clip)) else None


def _bounds(node: Node[Any]) -> tuple[float, float] | None:
    """What a clip, a clamp or the sign of an op leaves of any number."""
    if isinstance(node.op, Clip):
        return node.op.min, node.op.max
    if node.op.not_negative:
        return _POSITIVE
    return node.op.clamp


def _backward(node: Node[Any]) -> None:
    """The range of an operand that the node alone reads, from what it hands on of it."""
    x, result = node.at(0), next(iter(node.present_results), None)
    if x is None or result is None or x.is_output or len(x.uses) != 1:
        return
    own, out = x.range, result.range
    if own is None:
        return
    traits = node.traits
    if traits.kind is not Kind.PRESERVING or out is None or len(node.present_results) > 1:
        return
    threshold = min(own.threshold, out.threshold)
    _give(x, Range(max(own.min, out.min), min(own.max, out.max), threshold))


def _between(low: float, high: float) -> Range:
    return Range(low, high, max(abs(low), abs(high)))


def _clipped(range: Range, low: float, high: float) -> Range:
    """What a clip makes of a range, with zero in it; bounds may lie beyond the range."""
    least, most = (min(max(end, low), high) for end in (range.min, range.max))
    least, most = min(least, 0.0), max(most, 0.0)
    return Range(least, most, min(max(range.threshold, low, -high), max(-least, most)))


def _cut(range: Range, low: float, high: float) -> Range:
    """The part of a range within bounds; zero stays in it, as integers need it."""
    least, most = min(max(range.min, low), 0.0), max(min(range.max, high), 0.0)
    return Range(least, most, min(range.threshold, max(-least, most)))
