"""raise-activation: activation functions that exporters spell as several nodes become one."""

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
    Erf,
    Exp,
    Gelu,
    HardSigmoid,
    HardSwish,
    Log,
    Mish,
    Mul,
    Reciprocal,
    Sigmoid,
    Softplus,
    Softsign,
    Swish,
    Tanh,
)
from qdqc.rewrite.algebra import Affine, Algebra, Terms
from qdqc.rewrite.pattern import PatternPass, Result, Rewriter, rewrites

__all__ = ["RaiseActivation"]

_CUBIC = 0.044715
_SLOPE = math.sqrt(2 / math.pi)
_TOLERANCES = {Elem.F32: 1e-5, Elem.F16: 2e-3}
"""How far a constant may be off, by what exporters round it to; outputs move by no more."""


class RaiseActivation(PatternPass):
    """Make one op of the nodes that spell GELU, SiLU, HardSwish, Mish and their like."""

    name = "raise-activation"

    @rewrites(Mul, Div)
    def gelu(self, node: Node[Any], rw: Rewriter) -> Result:
        """x * 0.5 * (1 + erf(x / sqrt(2))) = gelu(x);
        x * 0.5 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))) = gelu(x){approximate=tanh}.
        """
        product = _product_with(node, Erf, rw) or _product_with(node, Tanh, rw)
        if product is None:
            return rw.no("it is not a product of a value with one of erf or tanh")
        algebra, terms, x, curve = product
        near = _tolerance(node)
        if not _equal(terms, {(x,): 0.5, _key(x, curve): 0.5}, near):
            return rw.no("it is not 0.5 * x * (1 + f)", curve)
        assert curve.producer is not None
        inner = algebra.terms(curve.producer.need("x"))
        if isinstance(curve.producer.op, Erf):
            if not _equal(inner, {(x,): math.sqrt(0.5)}, near):
                return rw.no("the operand of erf is not x / sqrt(2)", curve)
            return rw.op(Gelu(), x)
        if not _equal(inner, {(x,): _SLOPE, (x, x, x): _SLOPE * _CUBIC}, near):
            return rw.no("the operand of tanh is not that of gelu", curve)
        return rw.op(Gelu(approximate="tanh"), x)

    @rewrites(Mul)
    def swish(self, node: Node[Mul], rw: Rewriter) -> Result:
        """x * sigmoid(alpha * x) = swish(x){alpha}."""
        product = _product_with(node, Sigmoid, rw)
        if product is None:
            return rw.no("it is not a product of a value with its sigmoid")
        algebra, terms, x, curve = product
        if not _equal(terms, {_key(x, curve): 1.0}, 0.0):
            return rw.no("it is more than x * sigmoid", curve)
        assert curve.producer is not None
        inner = algebra.affine(curve.producer.need("x"))
        if inner.value is not x or inner.offset != 0:
            return rw.no("the sigmoid is of another value", curve)
        return rw.op(Swish(alpha=inner.scale), x)

    @rewrites(Mul)
    def mish(self, node: Node[Mul], rw: Rewriter) -> Result:
        """x * tanh(softplus(x)) = mish(x)."""
        product = _product_with(node, Tanh, rw)
        if product is None:
            return rw.no("it is not a product of a value with a tanh")
        algebra, terms, x, curve = product
        if not _equal(terms, {_key(x, curve): 1.0}, 0.0):
            return rw.no("it is more than x * tanh", curve)
        assert curve.producer is not None
        softplus = algebra.belongs(curve.producer.need("x"))
        if softplus is None or not isinstance(softplus.op, Softplus):
            return rw.no("the tanh is of no softplus", curve)
        if softplus.need("x") is not x:
            return rw.no("the softplus is of another value", softplus.need("x"))
        return rw.op(Mish(), x)

    @rewrites(Mul, Div)
    def hard_swish(self, node: Node[Any], rw: Rewriter) -> Result:
        """x * clip(x + 3, 0, 6) / 6 = hard_swish(x)."""
        product = _product_with(node, Clip, rw) or _product_with(node, Add, rw)
        if product is None:
            return rw.no("it is not a product of a value with a clip")
        algebra, terms, x, curve = product
        if not _equal(terms, {_key(x, curve): 1 / 6}, _tolerance(node)):
            return rw.no("it is not x * clip / 6", curve)
        line = _clipped(algebra, curve, 6.0)
        if line is None or line.value is not x or (line.scale, line.offset) != (1.0, 3.0):
            return rw.no("what is clipped is not x + 3 to [0, 6]", curve)
        return rw.op(HardSwish(), x)

    @rewrites(Mul)
    def gated_by_hard_sigmoid(self, node: Node[Mul], rw: Rewriter) -> Result:
        """x * hard_sigmoid(x){1/6, 1/2} = hard_swish(x)."""
        near = _tolerance(node)
        product = _product_with(node, HardSigmoid, rw)
        if product is None:
            return rw.no("it is not a product of a value with a hard_sigmoid")
        _, terms, x, curve = product
        if not _equal(terms, {_key(x, curve): 1.0}, 0.0):
            return rw.no("it is more than x * hard_sigmoid", curve)
        assert curve.producer is not None
        if curve.producer.need("x") is not x:
            return rw.no("the hard_sigmoid is of another value", curve)
        op = curve.producer.op
        if abs(op.alpha - 1 / 6) > near or abs(op.beta - 0.5) > near:
            return rw.no("the hard_sigmoid has other parameters", curve)
        return rw.op(HardSwish(), x)

    @rewrites(Mul, Div)
    def hard_sigmoid(self, node: Node[Any], rw: Rewriter) -> Result:
        """clip(a * x + b, 0, h) / h = hard_sigmoid(x){a / h, b / h}."""
        algebra = Algebra(rw)
        terms = algebra.terms(node.result)
        (key, factor), *_ = terms.items()
        if _tolerance(node) == 0 or len(terms) != 1 or len(key) != 1 or factor <= 0:
            return rw.no("it is not a value times a positive number")
        line = _clipped(algebra, key[0], 1 / factor)
        if line is None:
            return rw.no("its operand is not clipped to [0, 1 / factor]", key[0])
        if line.offset == 0:
            return rw.no("a scaled clip is not a hard_sigmoid", key[0])
        op = HardSigmoid(alpha=line.scale * factor, beta=line.offset * factor)
        return rw.op(op, line.value)

    @rewrites(Reciprocal, Div)
    def sigmoid(self, node: Node[Any], rw: Rewriter) -> Result:
        """1 / (1 + exp(-x)) = sigmoid(x); x / (1 + exp(-x)) = swish(x)."""
        near, algebra = _tolerance(node), Algebra(rw)
        if near == 0:
            return rw.no("it is not of floats")
        below = node.need("x") if isinstance(node.op, Reciprocal) else node.need("b")
        curve = _one_more(algebra, below, Exp)
        if curve is None or algebra.belongs(below) is None:
            return rw.no("the divisor is not 1 + exp", below)
        assert curve.producer is not None
        line = algebra.affine(curve.producer.need("x"))
        if line.offset != 0 or line.scale >= 0:
            return rw.no("the exponent is not -x", curve)
        above = None if isinstance(node.op, Reciprocal) else node.need("a")
        if above is line.value:
            return rw.op(Swish(alpha=-line.scale), line.value)
        if line.scale != -1:
            return rw.no("the exponent is not -x", curve)
        if above is not None and algebra.number(above) != 1:
            return rw.no("what is divided is neither 1 nor x", above)
        return rw.op(Sigmoid(), line.value)

    @rewrites(Div)
    def softsign(self, node: Node[Div], rw: Rewriter) -> Result:
        """x / (1 + abs(x)) = softsign(x)."""
        algebra, x, below = Algebra(rw), node.need("a"), node.need("b")
        curve = _one_more(algebra, below, Abs)
        if curve is None or algebra.belongs(below) is None:
            return rw.no("the divisor is not 1 + abs", below)
        assert curve.producer is not None
        if curve.producer.need("x") is not x:
            return rw.no("the absolute value is of another value", curve)
        return rw.op(Softsign(), x)

    @rewrites(Log)
    def softplus(self, node: Node[Log], rw: Rewriter) -> Result:
        """log(1 + exp(x)) = softplus(x)."""
        algebra, total = Algebra(rw), node.need("x")
        curve = _one_more(algebra, total, Exp)
        if curve is None or algebra.belongs(total) is None:
            return rw.no("its operand is not 1 + exp", total)
        assert curve.producer is not None
        return rw.op(Softplus(), curve.producer.need("x"))


def _tolerance(node: Node[Any]) -> float:
    return _TOLERANCES.get(node.result.tensor.elem, 0.0)


def _key(*values: Value) -> tuple[Value, ...]:
    return tuple(sorted(values, key=lambda v: v.name))


def _equal(terms: Terms, wanted: Terms, near: float) -> bool:
    """Whether two polynomials have the same terms, and coefficients within a relative error."""
    if terms.keys() != wanted.keys():
        return False
    return all(abs(terms[k] - v) <= near * abs(v) for k, v in wanted.items())


def _product_with(
    node: Node[Any], curve: type[Any], rw: Rewriter
) -> tuple[Algebra, Terms, Value, Value] | None:
    """The terms of a node in x and one value that an op of this class makes; both values."""
    clamp = node.op.clamp
    if clamp is not None or _tolerance(node) == 0:
        return None
    algebra = Algebra(rw)
    terms = algebra.terms(node.result)
    atoms = dict.fromkeys(v for key in terms for v in key)
    curves = [v for v in atoms if (p := algebra.belongs(v)) and isinstance(p.op, curve)]
    if len(atoms) != 2 or len(curves) != 1:
        return None
    (x,) = [v for v in atoms if v is not curves[0]]
    return algebra, terms, x, curves[0]


def _clipped(algebra: Algebra, value: Value, high: float) -> Affine | None:
    """What is clipped to [0, high], by a clip or as the clamp of an addition."""
    node = algebra.belongs(value)
    if node is None or not isinstance(node.op, Clip | Add):
        return None
    bounds = (node.op.min, node.op.max) if isinstance(node.op, Clip) else node.op.clamp
    if bounds is None or bounds[0] != 0 or not math.isclose(bounds[1], high, rel_tol=1e-5):
        return None
    if isinstance(node.op, Clip):
        return algebra.affine(node.need("x"))
    a, b = node.need("a"), node.need("b")
    x, shift = (b, algebra.number(a)) if algebra.number(b) is None else (a, algebra.number(b))
    if shift is None:
        return None
    line = algebra.affine(x)
    return Affine(line.scale, line.offset + shift, line.value)


def _one_more(algebra: Algebra, value: Value, curve: type[Any]) -> Value | None:
    """The f of 1 + f, where an op of this class makes f for this alone."""
    terms = algebra.terms(value)
    linear = [key[0] for key in terms if len(key) == 1]
    if len(linear) != 1 or terms != {(): 1.0, (linear[0],): 1.0}:
        return None
    node = algebra.belongs(linear[0])
    return linear[0] if node is not None and isinstance(node.op, curve) else None
