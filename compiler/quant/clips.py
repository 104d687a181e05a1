"""Clips that integers do by saturation: where they saturate, no node need clip."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from qdqc.ir.core import Node, Value
from qdqc.ir.graph import Graph
from qdqc.ir.op import Kind
from qdqc.ops import Clip, Dequantize, Quantize, Restate
from qdqc.quant.arithmetic import absorbs
from qdqc.quant.lowered import view_name

__all__ = ["absorb_clips", "bounds_of"]


def bounds_of(node: Node[Any]) -> tuple[float, float] | None:
    """The bounds that a clip or a fused clamp states; None for another node."""
    op = node.op
    return (op.min, op.max) if isinstance(op, Clip) else op.clamp


def absorb_clips(graph: Graph) -> int:
    """Take away clips of a typed graph that the integers behind them do; returns how many.

    A clip between integers gives its scale to what it reads, or is a cast from one scale to the
    other; one that is only quantized goes. A clamp with a lower bound below zero is no
    activation function that kernels know, and goes where the integers of its result saturate.
    """
    changes = 0
    for node in reversed(list(graph.nodes())):  # of two clips in a row the last decides
        bounds = bounds_of(node)
        if bounds is None:
            continue
        quant = node.result.quant
        if not isinstance(node.op, Clip):
            if quant is not None and bounds[0] < 0 and _absorbed(node.result, bounds):
                node.op = replace(node.op, clamp=None)
                changes += 1
        elif quant is None:
            changes += _pass_by(node, bounds)
        elif _absorbed(node.result, bounds):
            (_take_scale if _gives_scale(node) else _recast)(node)
            changes += 1
    return changes


def _absorbed(value: Value, bounds: tuple[float, float]) -> bool:
    quant = value.tensor.quant
    return quant is not None and quant.axis is None and absorbs(quant, bounds, value.tensor.elem)


def _pass_by(node: Node[Clip], bounds: tuple[float, float]) -> int:
    """Casts of a clipped value read what is clipped, if their integers saturate as the clip."""
    x, result = node.need("x"), node.result
    casts = [u for u in result.users if isinstance(u.op, Quantize) and _absorbed(u.result, bounds)]
    for cast in casts:
        cast.set_operand(0, x)
    if casts and not result.is_used:
        node.graph.erase(node)
    return len(casts)


def _gives_scale(node: Node[Clip]) -> bool:
    """Whether what is clipped may have the scale of the clip: nothing else has to do with it."""
    x = node.need("x")
    producer = x.producer
    if x.tensor == node.result.tensor:
        return True
    if producer is None or isinstance(producer.op, Quantize | Clip | Restate):
        return False
    if x.is_output or len(x.uses) != 1:
        return False
    return producer.traits.kind is not Kind.PRESERVING


def _take_scale(node: Node[Clip]) -> None:
    x, result = node.need("x"), node.result
    name, only = result.name, len(x.uses) == 1 and not x.is_output
    x.type = result.type
    result.replace_uses(x)
    node.graph.erase(node)
    if only:
        x.rename(name)


def _recast(node: Node[Clip]) -> None:
    """x : u8 q1 becomes y : u8 q2 by a cast to float and back, which saturates."""
    x, result, graph = node.need("x"), node.result, node.graph
    name = result.name
    type_ = x.tensor.expressed()
    view = graph.insert(
        Dequantize(), [x], [type_], [view_name(graph.module, x.name)], loc=node.loc, before=node
    ).result
    stored = graph.insert(
        Quantize(),
        [view],
        [result.type],
        [graph.module.fresh_name(name)],
        loc=node.loc,
        before=node,
    ).result
    result.replace_uses(stored)
    graph.erase(node)
    stored.rename(name)
