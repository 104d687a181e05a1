"""decompose-einsum: sums of products over named axes become matrix products."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qdqc.ir.core import Node, Value
from qdqc.ir.dims import Dim, product
from qdqc.ir.types import Elem
from qdqc.ops import Einsum, MatMul, Mul, ReduceSum, Reshape, Transpose, Unsqueeze
from qdqc.rewrite.layout import reshape_target
from qdqc.rewrite.pattern import PatternPass, Result, Rewriter, rewrites

__all__ = ["DecomposeEinsum"]


class DecomposeEinsum(PatternPass):
    """Write einsum as transpose, reshape and matmul, which have integer kernels and fold."""

    name = "decompose-einsum"

    @rewrites(Einsum)
    def single(self, node: Node[Einsum], rw: Rewriter) -> Result:
        """einsum(x){ij->ji} = transpose(x); axes that the result lacks are summed."""
        read = _read(node, 1, rw)
        if read is None:
            return None
        (x,), result = read
        return _in_order(_summed(x, result, rw), result, rw).value

    @rewrites(Einsum)
    def pair(self, node: Node[Einsum], rw: Rewriter) -> Result:
        """einsum(a, b){...ik,...kj->...ij} = matmul(a, b), with axes moved and joined as needed.

        Axes in both operands and in the result are the batch, those in both alone the inner
        dimension, those in one operand and in the result its rows or columns; an axis in one
        operand alone is summed first. Without an inner dimension it is a product element by
        element.
        """
        read = _read(node, 2, rw)
        if read is None:
            return None
        (a, b), result = read
        both = [c for c in a.labels if c in b.labels]
        sizes = {**a.known, **b.known}
        if any(a.known[c] != b.known[c] or a.known[c] is None for c in both):
            return rw.no("an axis may be 1 in one operand and longer in the other")
        batch = [c for c in result if c in both]
        inner = [c for c in both if c not in result]
        rows = [c for c in result if c in a.labels and c not in both]
        columns = [c for c in result if c in b.labels and c not in both]
        joins = any(len(group) != 1 for group in (rows, inner, columns))
        if inner and joins and sum(not isinstance(d, int) for d in sizes.values()) > 1:
            return rw.no("axes would be joined, and more than one size is not a number")
        left = _summed(a, [*batch, *rows, *inner], rw)
        right = _summed(b, [*batch, *inner, *columns], rw)
        if not inner:
            return rw.op(Mul(), _spread(left, result, rw), _spread(right, result, rw))
        matrices = (
            _joined(_in_order(left, [*batch, *rows, *inner], rw), len(batch), len(rows), rw),
            _joined(_in_order(right, [*batch, *inner, *columns], rw), len(batch), len(inner), rw),
        )
        whole, axes = rw.op(MatMul(), *matrices), [*batch, *rows, *columns]
        if len(rows) != 1 or len(columns) != 1:
            whole = _to_shape(whole, tuple(sizes[c] for c in axes), rw)
        return _in_order(_Named(whole, axes, sizes), result, rw).value


@dataclass(frozen=True)
class _Named:
    """A value with a letter for each axis. ``known`` holds sizes by letter."""

    value: Value
    labels: list[str]
    known: dict[str, Dim]


def _read(node: Node[Einsum], count: int, rw: Rewriter) -> tuple[list[_Named], list[str]] | None:
    """The operands with their letters, and the letters of the result; None with the reason."""
    if len(node.operands) != count:
        return rw.no(f"it has not {count} operands")
    terms, result = node.op.terms()
    if "." in "".join((*terms, result)):
        return rw.no("it has axes without a name")
    if any(len(set(t)) < len(t) for t in (*terms, result)):
        return rw.no("an axis comes twice in one operand: a diagonal")
    named: list[_Named] = []
    for term, value in zip(terms, node.present_operands, strict=True):
        shape = value.tensor.shape
        if shape is None or value.tensor.elem not in (Elem.F32, Elem.F16, Elem.F64):
            return rw.no("its rank is unknown, or it is not of floats", value)
        named.append(_Named(value, list(term), dict(zip(term, shape, strict=True))))
    return named, list(result)


def _summed(x: _Named, kept: list[str], rw: Rewriter) -> _Named:
    """Without the axes that nobody asks for."""
    axes = tuple(i for i, c in enumerate(x.labels) if c not in kept)
    if not axes:
        return x
    left = [c for c in x.labels if c in kept]
    return _Named(rw.op(ReduceSum(axes=axes, keepdims=False), x.value), left, x.known)


def _in_order(x: _Named, labels: list[str], rw: Rewriter) -> _Named:
    perm = tuple(x.labels.index(c) for c in labels)
    if perm == tuple(range(len(perm))):
        return x
    return _Named(rw.op(Transpose(perm=perm), x.value), labels, x.known)


def _spread(x: _Named, result: list[str], rw: Rewriter) -> Value:
    """In the order of the result, with an axis of 1 for each that it lacks."""
    own = _in_order(x, [c for c in result if c in x.labels], rw)
    missing = tuple(i for i, c in enumerate(result) if c not in x.labels)
    return rw.op(Unsqueeze(axes=missing), own.value) if missing else own.value


def _joined(x: _Named, batch: int, first: int, rw: Rewriter) -> Value:
    """A stack of matrices: ``first`` axes behind the batch are one, and so are the rest."""
    if first == 1 and len(x.labels) == batch + 2:
        return x.value
    sizes = [x.known[c] for c in x.labels]
    groups = (sizes[batch : batch + first], sizes[batch + first :])
    wanted = (*sizes[:batch], *(product(tuple(g)) for g in groups))
    return _to_shape(x.value, wanted, rw)


def _to_shape(x: Value, wanted: tuple[Dim, ...], rw: Rewriter) -> Value:
    numbers = reshape_target(wanted, x.tensor.shape, False)
    assert numbers is not None, "unknown sizes were declined"
    shape = rw.constant(np.array(numbers, np.int64), f"{rw.root.name}_shape", Elem.I64)
    return rw.op(Reshape(), x, shape)
