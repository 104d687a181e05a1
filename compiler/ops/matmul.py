"""Matrix products."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qdqc.ir.dims import Dim
from qdqc.ir.op import Kind, Onnx, Op, QuantTraits
from qdqc.ir.types import Elem, TensorType
from qdqc.ops.elementwise import Add
from qdqc.ops.inference import broadcast_shapes, need_broadcast, need_rank, same_elem

if TYPE_CHECKING:
    from qdqc.ir.core import Value
    from qdqc.ir.expansion import Parts

__all__ = ["Gemm", "MatMul"]


def _same_depth(a: Dim, b: Dim, trans_a: bool = False, trans_b: bool = False) -> None:
    if isinstance(a, int) and isinstance(b, int) and a != b:
        left, right = ("a (transposed)" if trans_a else "a"), ("b (transposed)" if trans_b else "b")
        raise ValueError(f"{left} has {a} columns, but {right} has {b} rows")


class MatMul(Op):
    """a @ b + bias; leading dimensions broadcast as in numpy. ``clamp`` is a fused activation.

    The bias has one number per column, [N] or [1,N]; ONNX writes it as an Add.
    """

    name = "matmul"
    operands = ("a", "b", "bias?")
    onnx = Onnx("MatMul")

    clamp: tuple[float, float] | None = None

    def infer(
        self, a: TensorType, b: TensorType, bias: TensorType | None = None
    ) -> tuple[TensorType]:
        same_elem(a=a, b=b, bias=bias)
        if a.shape is None or b.shape is None:
            return (TensorType(a.elem, None),)
        if not a.shape or not b.shape:
            raise ValueError("a and b need rank 1 or more")
        left = a.shape if len(a.shape) > 1 else (1, *a.shape)
        right = b.shape if len(b.shape) > 1 else (*b.shape, 1)
        _same_depth(left[-1], right[-2])
        batch = broadcast_shapes(left[:-2], right[:-2]) or ()
        rows = left[-2:-1] if len(a.shape) > 1 else ()
        columns = right[-1:] if len(b.shape) > 1 else ()
        shape = (*batch, *rows, *columns)
        if bias is not None:
            need_rank(bias, "bias", 1, 2)
            need_broadcast(bias, "bias", shape)
        return (TensorType(a.elem, shape),)

    def quant(self, a: TensorType, b: TensorType, bias: TensorType | None = None) -> QuantTraits:
        """A weight has rank 2; its last axis holds the output channels."""
        if a.elem is not Elem.F32:
            return QuantTraits()
        if b.rank == 2:
            return QuantTraits(Kind.WEIGHTED, weight=1, float_bias=2, axis=1)
        return QuantTraits(Kind.PRODUCT, float_bias=2)

    def expand(self, parts: Parts, a: Value, b: Value, bias: Value | None = None) -> Value | None:
        """add(matmul(a, b), bias)."""
        if bias is None:
            return None
        return parts.op(Add(), parts.op(MatMul(), a, b), bias)


class Gemm(Op):
    """alpha * a @ b + beta * c on matrices, either transposed first; c broadcasts."""

    name = "gemm"
    operands = ("a", "b", "c?")
    onnx = Onnx("Gemm", renames={"trans_a": "transA", "trans_b": "transB"})

    alpha: float = 1.0
    beta: float = 1.0
    trans_a: bool = False
    trans_b: bool = False
    clamp: tuple[float, float] | None = None

    def infer(self, a: TensorType, b: TensorType, c: TensorType | None = None) -> tuple[TensorType]:
        same_elem(a=a, b=b, c=c)
        need_rank(a, "a", 2)
        need_rank(b, "b", 2)
        rows, depth_a = self._sides(a, self.trans_a)
        depth_b, columns = self._sides(b, self.trans_b)
        _same_depth(depth_a, depth_b, self.trans_a, self.trans_b)
        if c is not None:
            need_rank(c, "c", 0, 2)
            need_broadcast(c, "c", (rows, columns))
        return (TensorType(a.elem, (rows, columns)),)

    def _sides(self, type: TensorType, transposed: bool) -> tuple[Dim, Dim]:
        if type.shape is None:
            return None, None
        first, second = type.shape
        return (second, first) if transposed else (first, second)

    def quant(self, a: TensorType, b: TensorType, c: TensorType | None = None) -> QuantTraits:
        if a.elem is not Elem.F32:
            return QuantTraits()
        return QuantTraits(Kind.WEIGHTED, weight=1, bias=2, axis=0 if self.trans_b else 1)
