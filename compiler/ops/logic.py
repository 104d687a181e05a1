"""Comparison, logic and selection, element by element with numpy's broadcasting."""

from __future__ import annotations

from qdqc.ir.dims import Dim
from qdqc.ir.op import Kind, Onnx, Op, QuantTraits
from qdqc.ir.types import Elem, TensorType
from qdqc.ops.inference import (
    broadcast_shapes,
    contents,
    least,
    need_elem,
    same_elem,
    traits,
    typed,
)
from qdqc.ops.pointwise import Predicate

__all__ = [
    "And",
    "BitwiseAnd",
    "BitwiseOr",
    "BitwiseXor",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Or",
    "Where",
    "Xor",
]


def _sign(a: Dim, b: Dim) -> tuple[int | None, int | None]:
    """Lower bounds of a - b and b - a."""
    if a is None or b is None:
        return None, None
    return least(a - b), least(b - a)


class Equal(Predicate):
    """a == b."""

    name = "equal"
    onnx = Onnx("Equal")

    def compute(self, a: Dim, b: Dim) -> Dim:
        above, below = _sign(a, b)
        if above == below == 0:
            return 1
        return 0 if (above or 0) > 0 or (below or 0) > 0 else None


class Greater(Predicate):
    """a > b."""

    name = "greater"
    onnx = Onnx("Greater")

    def compute(self, a: Dim, b: Dim) -> Dim:
        above, below = _sign(a, b)
        return 1 if (above or 0) > 0 else 0 if below is not None and below >= 0 else None


class Less(Predicate):
    """a < b."""

    name = "less"
    onnx = Onnx("Less")

    def compute(self, a: Dim, b: Dim) -> Dim:
        above, below = _sign(a, b)
        return 1 if (below or 0) > 0 else 0 if above is not None and above >= 0 else None


class GreaterOrEqual(Predicate):
    """a >= b."""

    name = "greater_or_equal"
    onnx = Onnx("GreaterOrEqual", since=12)


class LessOrEqual(Predicate):
    """a <= b."""

    name = "less_or_equal"
    onnx = Onnx("LessOrEqual", since=12)


class _Logic(Predicate):
    """What the ops on booleans share."""

    def infer(self, a: TensorType, b: TensorType) -> tuple[TensorType]:
        need_elem(a, "a", Elem.BOOL)
        need_elem(b, "b", Elem.BOOL)
        return super().infer(a, b)


class And(_Logic):
    """Both."""

    name = "and"
    onnx = Onnx("And")

    def compute(self, a: Dim, b: Dim) -> Dim:
        return 0 if 0 in (a, b) else 1 if a == b == 1 else None


class Or(_Logic):
    """One or both."""

    name = "or"
    onnx = Onnx("Or")

    def compute(self, a: Dim, b: Dim) -> Dim:
        return 1 if 1 in (a, b) else 0 if a == b == 0 else None


class Xor(_Logic):
    """One but not both."""

    name = "xor"
    onnx = Onnx("Xor")


class _Bitwise(Op):
    """What the ops on the bits of two integers share."""

    operands = ("a", "b")
    elementwise = True

    def infer(self, a: TensorType, b: TensorType) -> tuple[TensorType]:
        same_elem(a=a, b=b)
        if not a.elem.is_integer:
            raise ValueError(f"operands are {a.elem.text}, but integers are needed")
        return (TensorType(a.elem, broadcast_shapes(a.shape, b.shape)),)


class BitwiseAnd(_Bitwise):
    """Bits that are set in both."""

    name = "bitwise_and"
    onnx = Onnx("BitwiseAnd", since=18)


class BitwiseOr(_Bitwise):
    """Bits that are set in one or both."""

    name = "bitwise_or"
    onnx = Onnx("BitwiseOr", since=18)


class BitwiseXor(_Bitwise):
    """Bits that are set in one but not both."""

    name = "bitwise_xor"
    onnx = Onnx("BitwiseXor", since=18)


class Where(Op):
    """``a`` where the condition holds, else ``b``."""

    name = "where"
    operands = ("condition", "a", "b")
    elementwise = True
    onnx = Onnx("Where", since=9)

    def infer(self, condition: TensorType, a: TensorType, b: TensorType) -> tuple[TensorType]:
        need_elem(condition, "condition", Elem.BOOL)
        same_elem(a=a, b=b)
        shape = broadcast_shapes(condition.shape, a.shape, b.shape)
        return (typed(a.elem, shape, self._contents(condition, a, b)),)

    def _contents(
        self, condition: TensorType, a: TensorType, b: TensorType
    ) -> tuple[Dim, ...] | None:
        known = tuple(v for v in map(contents, (condition, a, b)) if v is not None)
        if len(known) < 3:
            return None
        count = max(map(len, known)) if all(known) else 0
        chosen, left, right = (v * count if len(v) == 1 else v for v in known)
        if not len(chosen) == len(left) == len(right) == count:
            return None
        picked: list[Dim] = []
        for flag, x, y in zip(chosen, left, right, strict=True):
            picked.append(x if flag == 1 or x == y else y if flag == 0 else None)
        return tuple(picked)

    def quant(self, condition: TensorType, a: TensorType, b: TensorType) -> QuantTraits:
        return traits(a, Kind.ARITHMETIC)
