"""move-casts: a batch is transposed in the type that a product computes in."""

from __future__ import annotations

from collections.abc import Sequence

from qdqc.ir.core import Node, Value
from qdqc.ir.types import Elem
from qdqc.ops import Cast, MatMul, Transpose
from qdqc.rewrite.pattern import PatternPass, Result, Rewriter, rewrites

__all__ = ["MoveCasts"]


class MoveCasts(PatternPass):
    """Leave no Cast between the Transpose of a batch and the MatMul that reads it.

    onnxruntime fuses such a Transpose into the MatMul through the Cast, and ends the process over
    it (1.32). It does so only where the first axis becomes one of the last two; its CPU kernels of
    MatMul are of float32, so half precision is cast right there.
    """

    name = "move-casts"

    @rewrites(Cast)
    def before(self, node: Node[Cast], rw: Rewriter) -> Result:
        """cast(transpose(x)) = transpose(cast(x)), but f16 is cast to behind it."""
        moved = node.need("x")
        transpose = moved.producer
        if transpose is None or not isinstance(transpose.op, Transpose):
            return rw.no("no Transpose before it", moved)
        if not _moves_batch(transpose.op.perm):
            return rw.no("the first axis stays the first", moved)
        if not _is_multiplied(node.result):
            return rw.no("no MatMul reads it", node.result)
        x = transpose.need("x")
        if node.result.elem is not Elem.F16:
            return rw.op(transpose.op, rw.op(node.op, x))
        if x.elem is Elem.F32:
            return rw.no("the Transpose is in float32", x)
        return rw.op(node.op, rw.op(transpose.op, rw.op(Cast(to="f32"), x)))

    @rewrites(Transpose)
    def around(self, node: Node[Transpose], rw: Rewriter) -> Result:
        """transpose(x) of f16 = cast(transpose(cast(x) to f32) to f16)."""
        x = node.need("x")
        if x.elem is not Elem.F16:
            return rw.no("it is not in half precision", x)
        if not _moves_batch(node.op.perm):
            return rw.no("the first axis stays the first")
        if not _is_multiplied(node.result):
            return rw.no("no MatMul reads it", node.result)
        return rw.op(Cast(to="f16"), rw.op(node.op, rw.op(Cast(to="f32"), x)))


def _moves_batch(perm: Sequence[int]) -> bool:
    return len(perm) >= 3 and perm[0] != 0


def _is_multiplied(value: Value) -> bool:
    readers = (use.user for use in value.uses)
    return any(isinstance(r, Node) and isinstance(r.op, MatMul) for r in readers)
