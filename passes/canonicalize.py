"""canonicalize: one spelling for what can be spelt in several ways."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from qdqc.ir.core import Constant, Node
from qdqc.ir.op import OPS
from qdqc.ir.types import Elem
from qdqc.ops import (
    Add,
    Cast,
    Clip,
    Concat,
    Div,
    Gemm,
    Identity,
    MatMul,
    Mul,
    Opaque,
    Sub,
)
from qdqc.ops.onnx_table import reveal
from qdqc.ops.reduce import Reduce
from qdqc.rewrite.layout import same_shape
from qdqc.rewrite.pattern import PatternPass, Result, Rewriter, rewrites

__all__ = ["Canonicalize"]


class Canonicalize(PatternPass):
    """Remove what does nothing and bring equal things to one form."""

    name = "canonicalize"

    @rewrites(Opaque)
    def reveal(self, node: Node[Opaque], rw: Rewriter) -> Result:
        """An opaque node whose inputs have become constants turns into its own op."""
        native = reveal(node)
        if native is None:
            return rw.no("it has no op of its own, or an input that is not a constant")
        op, operands = native
        types = [None if r is None else r.type for r in node.results]
        return rw.node(op, operands, types).results

    @rewrites(*(op for op in OPS if issubclass(op, Reduce)))
    def known_axes(self, node: Node[Any], rw: Rewriter) -> Result:
        """Axes that were computed and have become constants are an attribute."""
        computed = node.operand("computed_axes")
        if computed is None:
            return rw.no("its axes are an attribute")
        axes = rw.array(computed)
        if axes is None:
            return rw.no("its axes are not a known constant", computed)
        return rw.op(replace(node.op, axes=tuple(axes.tolist())), node.need("x"))

    @rewrites(Identity)
    def identity(self, node: Node[Identity], rw: Rewriter) -> Result:
        """identity(x) = x."""
        return node.need("x")

    @rewrites(Cast)
    def cast(self, node: Node[Cast], rw: Rewriter) -> Result:
        """A cast to the type that the value has already is the value."""
        x = node.need("x")
        if x.tensor.elem is not node.result.tensor.elem:
            return rw.no("it changes the type", x)
        return x

    @rewrites(Concat)
    def concat(self, node: Node[Concat], rw: Rewriter) -> Result:
        """concat(x) = x."""
        if len(node.operands) != 1:
            return rw.no("it joins several values")
        return node.operands[0]

    @rewrites(Clip)
    def clip(self, node: Node[Clip], rw: Rewriter) -> Result:
        """clip(x, -inf, inf) = x."""
        if node.op.min != -math.inf or node.op.max != math.inf:
            return rw.no("it has a bound")
        return node.need("x")

    @rewrites(Sub)
    def subtract(self, node: Node[Sub], rw: Rewriter) -> Result:
        """x - c = x + (-c)."""
        c = rw.array(node.need("b"))
        if c is None or node.need("b").tensor.elem is not Elem.F32:
            return rw.no("what is subtracted is not a float constant", node.need("b"))
        negated = rw.constant(np.negative(c), f"{node.need('b').name}_neg")
        return rw.op(Add(), node.need("a"), negated)

    @rewrites(Div)
    def divide(self, node: Node[Div], rw: Rewriter) -> Result:
        """x / c = x * (1 / c), where 1 / c is a finite number."""
        b = node.need("b")
        c = rw.array(b)
        if c is None or b.tensor.elem is not Elem.F32:
            return rw.no("the divisor is not a float constant", b)
        smallest = 1 / np.finfo(np.float32).max
        if not (np.abs(c) > smallest).all() or not np.isfinite(c).all():
            return rw.no("the divisor has no finite inverse", b)
        inverse = rw.constant((1 / c.astype(np.float64)).astype(np.float32), f"{b.name}_inv")
        return rw.op(Mul(), node.need("a"), inverse)

    @rewrites(Mul)
    def multiply(self, node: Node[Mul], rw: Rewriter) -> Result:
        """x * 1 = x, where the shape stays."""
        return _neutral(node, 1.0, rw)

    @rewrites(Add)
    def add(self, node: Node[Add], rw: Rewriter) -> Result:
        """x + 0 = x, where the shape stays."""
        return _neutral(node, 0.0, rw)

    @rewrites(Add)
    def bias(self, node: Node[Add], rw: Rewriter) -> Result:
        """matmul(x, W) + b = matmul(x, W, b); on float32 matrices it is gemm(x, W, b)."""
        a, b = node.need("a"), node.need("b")
        product, bias = (b, a) if isinstance(a, Constant) else (a, b)
        matmul = product.producer
        if matmul is None or not isinstance(matmul.op, MatMul):
            return rw.no("no operand is a matrix product", product)
        if not rw.only_use(product):
            return rw.no("the product is read elsewhere too", product)
        if matmul.op.clamp is not None or matmul.mode != node.mode:
            return rw.no("the product has an activation or a precision of its own", product)
        if matmul.operand("bias") is not None:
            return rw.no("the product has a bias", product)
        x, weight = matmul.need("a"), matmul.need("b")
        if not isinstance(weight, Constant) or weight.tensor.rank != 2 or x.tensor.rank is None:
            return rw.no("it is not a product with a constant matrix", product)
        columns = weight.data.shape[1]
        if not isinstance(bias, Constant) or bias.data.shape not in ((columns,), (1, columns)):
            return rw.no("what is added is not a constant with one number per column", bias)
        if len(bias.data.shape) > x.tensor.rank:
            return rw.no("the bias has more dimensions than the product", bias)
        if x.tensor.expressed().elem not in (Elem.F32, Elem.F16, Elem.BF16, Elem.F64):
            return rw.no("it is not of floats", product)
        numbers = rw.array(bias)
        if numbers is not None and np.isinf(numbers).any():
            return rw.no("what is added holds infinity, as a mask does", bias)
        if x.tensor.rank == 2 and all(v.tensor.elem is Elem.F32 for v in (x, weight, bias)):
            return rw.op(Gemm(clamp=node.op.clamp), x, weight, bias)
        return rw.op(MatMul(clamp=node.op.clamp), x, weight, bias)

    @rewrites(Gemm)
    def bias_row(self, node: Node[Gemm], rw: Rewriter) -> Result:
        """The bias of a gemm has shape [N] rather than [1,N]."""
        bias = node.operand("c")
        array = rw.array(bias)
        if bias is None or array is None or array.ndim != 2 or array.shape[0] != 1:
            return rw.no("its bias is not a constant row", bias)
        if array.shape != (1, node.result.tensor.shape[1] if node.result.tensor.shape else None):
            return rw.no("its bias is one number for all columns", bias)
        row = rw.constant(array.reshape(-1), f"{bias.name}_row")
        return rw.op(node.op, node.need("a"), node.need("b"), row)


def _neutral(node: Node[Any], neutral: float, rw: Rewriter) -> Result:
    """The other operand where one is the neutral element; a clamp stays as a clip."""
    for index in (0, 1):
        array, other = rw.array(node.at(index)), node.at(1 - index)
        if array is None or other is None or not (array == neutral).all():
            continue
        if not same_shape(other, node.result):
            return rw.no("the constant widens the shape", node.at(index))
        if node.op.clamp is None:
            return other
        low, high = node.op.clamp
        return rw.op(Clip(min=low, max=high), other)
    return rw.no("no operand is a constant that does nothing")
