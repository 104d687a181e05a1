"""The shared forms of ops that work element by element."""

from __future__ import annotations

from typing import ClassVar

from qdqc.ir.dims import Dim
from qdqc.ir.op import Kind, Op, QuantTraits
from qdqc.ir.types import Elem, TensorType
from qdqc.ops.inference import broadcast_shapes, contents, same_elem, traits, typed

__all__ = ["Binary", "Pointwise", "Predicate", "Variadic", "pairs"]


def pairs(a: TensorType, b: TensorType) -> list[tuple[Dim, Dim]] | None:
    """Pairs of known contents of two integer tensors of rank 0 or 1, broadcast."""
    left, right = contents(a), contents(b)
    if left is None or right is None:
        return None
    if len(left) != len(right):
        left = left * len(right) if len(left) == 1 else left
        right = right * len(left) if len(right) == 1 else right
    return list(zip(left, right, strict=True)) if len(left) == len(right) else None


class Pointwise(Op):
    """An op of one operand whose result has the operand's type.

    ``kind`` and ``fixed`` are what ``quant`` says for float32 operands.
    """

    operands = ("x",)
    elementwise = True
    kind: ClassVar[Kind] = Kind.FLOAT
    fixed: ClassVar[tuple[float, float] | None] = None

    def infer(self, x: TensorType) -> tuple[TensorType]:
        return (TensorType(x.elem, x.shape),)

    def quant(self, x: TensorType) -> QuantTraits:
        return traits(x, self.kind, self.fixed)


class Variadic(Op):
    """An op of any number of operands of one element type, broadcast against each other."""

    operands = ("xs*",)
    elementwise = True

    def infer(self, *xs: TensorType) -> tuple[TensorType]:
        if not xs:
            raise ValueError("at least one operand is needed")
        same_elem(**{f"operand {i}": x for i, x in enumerate(xs)})
        shape = broadcast_shapes(*(x.shape for x in xs))
        joined = xs[0]
        for x in xs[1:]:
            both = pairs(joined, x)
            value = None if both is None else tuple(self.compute(a, b) for a, b in both)
            joined = TensorType(x.elem, shape, value=value)
        return (typed(xs[0].elem, shape, joined.value),)

    def compute(self, a: Dim, b: Dim) -> Dim:
        """The result on two dimensions; None where it is unknown."""
        return None


class Binary(Op):
    """An op of two operands of one element type, broadcast against each other.

    ``gives`` is the element type of the result; None stands for that of the operands.
    """

    operands = ("a", "b")
    elementwise = True
    gives: ClassVar[Elem | None] = None

    def infer(self, a: TensorType, b: TensorType) -> tuple[TensorType]:
        same_elem(a=a, b=b)
        both = pairs(a, b)
        value = None if both is None else [self.compute(x, y) for x, y in both]
        return (typed(self.gives or a.elem, broadcast_shapes(a.shape, b.shape), value),)

    def compute(self, a: Dim, b: Dim) -> Dim:
        """The result on dimensions, 1 or 0 for a boolean; None where it is unknown."""
        return None


class Predicate(Binary):
    """An op of two operands that gives booleans."""

    gives = Elem.BOOL
