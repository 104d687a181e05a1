"""simplify-arithmetic: float arithmetic in the shortest of its spellings."""

from __future__ import annotations

import math
from typing import Any

from qdqc.ir.core import Node, Value
from qdqc.ir.types import Elem
from qdqc.ops import (
    Abs,
    Add,
    Clip,
    Div,
    Log,
    LogSoftmax,
    Max,
    Min,
    Mul,
    Neg,
    Pow,
    Reciprocal,
    Relu,
    Softmax,
    Sqrt,
    Sub,
    Sum,
)
from qdqc.rewrite.layout import same_shape
from qdqc.rewrite.pattern import PatternPass, Result, Rewriter, rewrites

__all__ = ["SimplifyArithmetic"]

_FLOATS = (Elem.F32, Elem.F16, Elem.BF16, Elem.F64)


class SimplifyArithmetic(PatternPass):
    """Merge clips, signs, powers and inverses; make clips of minima and maxima."""

    name = "simplify-arithmetic"

    @rewrites(Clip)
    def relu(self, node: Node[Clip], rw: Rewriter) -> Result:
        """clip(x, 0, inf) = relu(x)."""
        if (node.op.min, node.op.max) != (0, math.inf):
            return rw.no("its bounds are not 0 and infinity")
        if node.need("x").tensor.elem not in _FLOATS:
            return rw.no("it is not of floats", node.need("x"))
        return rw.op(Relu(), node.need("x"))

    @rewrites(Clip, Relu)
    def bounds(self, node: Node[Any], rw: Rewriter) -> Result:
        """clip(clip(x, a, b), lo, hi) = clip(x, clip(a, lo, hi), clip(b, lo, hi)); relu too."""
        inner = node.need("x").producer
        if inner is None or not isinstance(inner.op, Clip | Relu) or inner.mode != node.mode:
            return rw.no("its producer is not a clip", node.need("x"))
        (a, b), (low, high) = _range(inner.op), _range(node.op)
        if a > b or low > high:
            return rw.no("its bounds are the wrong way round", node.need("x"))
        if (low, high) == (0, math.inf) and low <= a:
            return inner.result
        least, most = (min(max(bound, low), high) for bound in (a, b))
        if (least, most) == (a, b):
            return inner.result
        return rw.op(Clip(min=least, max=most), inner.need("x"))

    @rewrites(Max, Min)
    def limit(self, node: Node[Any], rw: Rewriter) -> Result:
        """max(x, c) = clip(x, c, inf); min(x, c) = clip(x, -inf, c), for one number c."""
        first, *others = node.present_operands
        if not others:
            return first
        if len(others) > 1 or first.tensor.elem is not Elem.F32:
            return rw.no("it is not of two values of float32", first)
        x, c = (first, others[0]) if rw.array(first) is None else (others[0], first)
        bound = rw.array(c)
        if bound is None or bound.size != 1 or not same_shape(x, node.result):
            return rw.no("no operand is one constant number", c)
        number = float(bound.reshape(())[()])
        if math.isnan(number):
            return rw.no("the constant is not a number", c)
        if isinstance(node.op, Max):
            return rw.op(Clip(min=number), x)
        return rw.op(Clip(max=number), x)

    @rewrites(Sum)
    def total(self, node: Node[Sum], rw: Rewriter) -> Result:
        """sum(a, b) = a + b; sum(a) = a."""
        operands = node.present_operands
        if len(operands) == 1:
            return operands[0]
        if len(operands) > 2:
            return rw.no("it has three operands or more")
        return rw.op(Add(), *operands)

    @rewrites(Pow)
    def power(self, node: Node[Pow], rw: Rewriter) -> Result:
        """x^1 = x; x^0.5 = sqrt(x); x^-1 = reciprocal(x)."""
        x, exponent = node.need("a"), rw.array(node.need("b"))
        if exponent is None or exponent.size != 1 or not same_shape(x, node.result):
            return rw.no("its exponent is not one constant number", node.need("b"))
        number = float(exponent.reshape(())[()])
        if number == 1:
            return x
        if x.tensor.elem not in _FLOATS:
            return rw.no("it is not of floats", x)
        if number == 0.5:
            return rw.op(Sqrt(), x)
        if number == -1:
            return rw.op(Reciprocal(), x)
        return rw.no("its exponent is none of 1, 0.5 and -1", node.need("b"))

    @rewrites(Neg, Abs)
    def sign(self, node: Node[Any], rw: Rewriter) -> Result:
        """-(-x) = x; |-x| = |x|; |(|x|)| = |x|."""
        x = node.need("x")
        inner = x.producer
        if inner is None or not isinstance(inner.op, Neg | Abs):
            return rw.no("its producer is not a change of sign", x)
        if isinstance(node.op, Abs):
            return x if isinstance(inner.op, Abs) else rw.op(Abs(), inner.need("x"))
        if isinstance(inner.op, Abs):
            return rw.no("-|x| has no shorter form", x)
        return inner.need("x")

    @rewrites(Add, Sub)
    def negated(self, node: Node[Any], rw: Rewriter) -> Result:
        """a + (-b) = a - b; (-a) + b = b - a; a - (-b) = a + b."""
        a, b = node.need("a"), node.need("b")
        if node.op.clamp is not None:
            return rw.no("it has an activation")
        left, right = _under(a, Neg, rw), _under(b, Neg, rw)
        if right is not None:
            return rw.op(Add() if isinstance(node.op, Sub) else Sub(), a, right)
        if left is not None and isinstance(node.op, Add):
            return rw.op(Sub(), b, left)
        return rw.no("no operand is a negation that it alone reads", b)

    @rewrites(Div)
    def product(self, node: Node[Div], rw: Rewriter) -> Result:
        """a / reciprocal(b) = a * b; 1 / b = reciprocal(b)."""
        a, b = node.need("a"), node.need("b")
        factor = _under(b, Reciprocal, rw)
        if factor is not None:
            return rw.op(Mul(), a, factor)
        one = rw.array(a)
        if one is None or b.tensor.elem not in _FLOATS or not (one == 1).all():
            return rw.no("what is divided is not 1", a)
        return rw.op(Reciprocal(), b) if same_shape(b, node.result) else rw.no("1 widens it", a)

    @rewrites(Log)
    def log_softmax(self, node: Node[Log], rw: Rewriter) -> Result:
        """log(softmax(x)) = log_softmax(x)."""
        inner = node.need("x").producer
        if inner is None or not isinstance(inner.op, Softmax) or not rw.only_use(node.need("x")):
            return rw.no("its operand is not a softmax that it alone reads", node.need("x"))
        return rw.op(LogSoftmax(axis=inner.op.axis), inner.need("x"))


def _range(op: Clip | Relu) -> tuple[float, float]:
    return (op.min, op.max) if isinstance(op, Clip) else (0.0, math.inf)


def _under(value: Value, op: type[Neg | Reciprocal], rw: Rewriter) -> Value | None:
    """What ``op`` was applied to for the root alone."""
    node = value.producer
    alone = node is not None and isinstance(node.op, op) and rw.only_use(value)
    return node.need("x") if node is not None and alone else None
