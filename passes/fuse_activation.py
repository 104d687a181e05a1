"""fuse-activation: Relu and Clip become the clamp of their producer."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from qdqc.ir.core import Node, Value
from qdqc.ops import Clip, Relu
from qdqc.rewrite.pattern import PatternPass, Rewriter, rewrites

__all__ = ["FuseActivation"]


class FuseActivation(PatternPass):
    """Fuse Relu and Clip into the producer's clamp: clip(op(x), lo, hi) = op(x){clamp}."""

    name = "fuse-activation"

    @rewrites(Relu)
    def relu(self, node: Node[Relu], rw: Rewriter) -> Value | None:
        """relu(y) = clip(y, 0, inf)."""
        return _fuse(node, (0.0, math.inf), rw)

    @rewrites(Clip)
    def clip(self, node: Node[Clip], rw: Rewriter) -> Value | None:
        """clip(clip(y, a, b), lo, hi) = clip(y, clip(a, lo, hi), clip(b, lo, hi))."""
        return _fuse(node, (node.op.min, node.op.max), rw)


def _fuse(node: Node[Any], bounds: tuple[float, float], rw: Rewriter) -> Value | None:
    x = node.need("x")
    producer = x.producer
    if producer is None:
        return rw.no("it clips a graph input or a constant", x)
    if not producer.op.takes_clamp():
        return rw.no(f"its producer '{producer.op.name}' has no clamp", x)
    if not rw.only_use(x):
        return rw.no("its operand is read elsewhere too", x)
    if producer.mode != node.mode:
        return rw.no("it has another precision than its producer", x)
    low, high = bounds
    if low > high:
        return rw.no("its bounds are the wrong way round", x)
    if producer.op.clamp is not None:
        low, high = (min(max(b, low), high) for b in producer.op.clamp)
    return rw.op(replace(producer.op, clamp=(low, high)), *producer.operands)
