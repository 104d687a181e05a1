"""simplify-logic: choices that are made, types that change twice, copies that nobody needs."""

from __future__ import annotations

from typing import Any

from qdqc.ir.core import Node, Value
from qdqc.ir.op import OPS
from qdqc.ir.types import Elem, TensorType
from qdqc.ops import (
    And,
    Cast,
    Expand,
    Not,
    Or,
    PRelu,
    Tile,
    Where,
)
from qdqc.rewrite.layout import inferred_shape, same_shape
from qdqc.rewrite.pattern import PatternPass, Result, Rewriter, rewrites

__all__ = ["SimplifyLogic"]

_WHOLE_BITS = {Elem.F64: 53, Elem.F32: 24, Elem.F16: 11, Elem.BF16: 8}
"""Integers up to 2 to this power are numbers of the float type."""

_WIDER = {
    Elem.F16: (Elem.F32, Elem.F64),
    Elem.BF16: (Elem.F32, Elem.F64),
    Elem.F32: (Elem.F64,),
}


class SimplifyLogic(PatternPass):
    """Take decided branches, join casts that lose nothing, and let operands broadcast."""

    name = "simplify-logic"

    @rewrites(Where)
    def decided(self, node: Node[Where], rw: Rewriter) -> Result:
        """where(true, a, b) = a; where(false, a, b) = b; where(c, a, a) = a."""
        a, b = node.need("a"), node.need("b")
        flags = rw.array(node.need("condition"))
        if a is b:
            chosen = a
        elif flags is None or flags.any() != flags.all():
            return rw.no("its condition is not the same everywhere, or not known", node.operands[0])
        else:
            chosen = a if flags.all() else b
        if not same_shape(chosen, node.result):
            return rw.no("another operand widens it", chosen)
        return chosen

    @rewrites(Where)
    def condition(self, node: Node[Where], rw: Rewriter) -> Result:
        """where(not c, a, b) = where(c, b, a)."""
        inner = node.need("condition").producer
        if inner is None or not isinstance(inner.op, Not):
            return rw.no("its condition is not a negation", node.need("condition"))
        return rw.op(Where(), inner.need("x"), node.need("b"), node.need("a"))

    @rewrites(Where)
    def again(self, node: Node[Where], rw: Rewriter) -> Result:
        """where(c, where(c, a, b), d) = where(c, a, d); where(c, a, where(c, b, d)) likewise."""
        flags, a, b = node.need("condition"), node.need("a"), node.need("b")
        first, second = _chosen(a, flags, "a"), _chosen(b, flags, "b")
        if first is a and second is b:
            return rw.no("no branch asks for the same condition", flags)
        shape = inferred_shape(node)
        joined = Where().infer(flags.tensor, first.tensor, second.tensor)[0].shape
        if shape is None or None in shape or joined != shape:
            return rw.no("the branch that goes widens it", flags)
        return rw.op(Where(), flags, first, second)

    @rewrites(Not)
    def twice(self, node: Node[Not], rw: Rewriter) -> Result:
        """not(not(x)) = x."""
        inner = node.need("x").producer
        if inner is None or not isinstance(inner.op, Not):
            return rw.no("its producer is not a negation", node.need("x"))
        return inner.need("x")

    @rewrites(And, Or)
    def neutral(self, node: Node[Any], rw: Rewriter) -> Result:
        """x and true = x; x or false = x; x and x = x or x = x."""
        a, b = node.need("a"), node.need("b")
        if a is b:
            return a
        for x, other in ((a, b), (b, a)):
            flags = rw.array(other)
            if flags is None or not (flags == isinstance(node.op, And)).all():
                continue
            return x if same_shape(x, node.result) else rw.no("the constant widens it", other)
        return rw.no("no operand is a constant that does nothing", b)

    @rewrites(Cast)
    def casts(self, node: Node[Cast], rw: Rewriter) -> Result:
        """cast(cast(x){t}){u} = cast(x){u}, where t holds every number of x's type."""
        x = node.need("x")
        inner = x.producer
        if inner is None or not isinstance(inner.op, Cast):
            return rw.no("its producer is not a cast", x)
        source = inner.need("x")
        if not _holds(x.tensor.elem, source.tensor.elem):
            return rw.no("the first cast may lose something", x)
        return source if source.tensor.elem is node.result.tensor.elem else rw.op(node.op, source)

    @rewrites(*(op for op in OPS if op.elementwise and op.operands != ("x",)))
    def broadcast(self, node: Node[Any], rw: Rewriter) -> Result:
        """a + expand(b) = a + b, where a has that shape already; so with tile and other ops."""
        wanted = inferred_shape(node)
        if wanted is None or None in wanted:
            return rw.no("the shape is unknown", node.result)
        for index, value in enumerate(node.operands):
            source = None if value is None else _unrepeated(value)
            # In ONNX a slope broadcasts to x, but x not to a slope.
            if source is None or (isinstance(node.op, PRelu) and index == 0):
                continue
            operands = [source if i == index else v for i, v in enumerate(node.operands)]
            type = node.op.infer(*(v.tensor for v in operands if v is not None))[0]
            if isinstance(type, TensorType) and type.shape == wanted:
                return rw.op(node.op, *operands)
        return rw.no("no operand is repeated to a shape that another one has", node.result)


def _chosen(value: Value, flags: Value, branch: str) -> Value:
    """What a Where on the same condition gives in that branch."""
    node = value.producer
    if node is None or not isinstance(node.op, Where) or node.need("condition") is not flags:
        return value
    return node.need(branch)


def _holds(wide: Elem, narrow: Elem) -> bool:
    """Whether a type holds every number of another."""
    if wide in _WIDER.get(narrow, ()) or narrow is wide:
        return True
    if narrow is Elem.BOOL:
        return wide.is_integer or wide in _WHOLE_BITS
    if not narrow.is_integer:
        return False
    low, high = narrow.limits
    if wide.is_integer:
        return wide.limits[0] <= low and high <= wide.limits[1]
    return max(-low, high) <= 2 ** _WHOLE_BITS.get(wide, 0)


def _unrepeated(value: Value) -> Value | None:
    """What an Expand, or a Tile of dimensions of size 1, repeats."""
    node = value.producer
    if node is None or not isinstance(node.op, Expand | Tile):
        return None
    x, wide = node.need("x"), inferred_shape(node)
    shape = x.tensor.shape
    if shape is None or wide is None or len(shape) > len(wide):
        return None
    pairs = zip(reversed(shape), reversed(wide), strict=False)
    return x if all(a == 1 or (a is not None and a == b) for a, b in pairs) else None
