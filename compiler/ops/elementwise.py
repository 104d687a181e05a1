"""Arithmetic, element by element with numpy's broadcasting."""

from __future__ import annotations

from typing import Literal

from qdqc.ir.dims import Dim
from qdqc.ir.op import Kind, Onnx, Op, QuantTraits
from qdqc.ir.types import TensorType
from qdqc.ops.inference import broadcast_shapes, least, traits
from qdqc.ops.pointwise import Binary, Variadic

__all__ = ["Add", "BitShift", "Div", "Max", "Mean", "Min", "Mod", "Mul", "Pow", "Sub", "Sum"]


class _Arithmetic(Binary):
    """What the ops of two operands share."""

    def quant(self, a: TensorType, b: TensorType) -> QuantTraits:
        return traits(a, Kind.ARITHMETIC)


class Add(_Arithmetic):
    """a + b; ``clamp`` is a fused activation."""

    name = "add"
    onnx = Onnx("Add")

    clamp: tuple[float, float] | None = None

    def compute(self, a: Dim, b: Dim) -> Dim:
        return None if a is None or b is None else a + b


class Sub(_Arithmetic):
    """a - b."""

    name = "sub"
    onnx = Onnx("Sub")

    def compute(self, a: Dim, b: Dim) -> Dim:
        return None if a is None or b is None else a - b


class Mul(_Arithmetic):
    """a * b; ``clamp`` is a fused activation."""

    name = "mul"
    onnx = Onnx("Mul")

    clamp: tuple[float, float] | None = None

    def compute(self, a: Dim, b: Dim) -> Dim:
        return None if a is None or b is None else a * b


class Div(_Arithmetic):
    """a / b; integers are truncated toward zero."""

    name = "div"
    onnx = Onnx("Div")

    def compute(self, a: Dim, b: Dim) -> Dim:
        if a is None or b is None or b == 0:
            return None
        if isinstance(a, int) and isinstance(b, int):
            quotient = abs(a) // abs(b)
            return quotient if (a < 0) == (b < 0) else -quotient
        # Truncation is floor division where nothing is negative.
        low_a, low_b = least(a), least(b)
        exact = low_a is not None and low_a >= 0 and low_b is not None and low_b > 0
        return a // b if exact else None


class Mod(_Arithmetic):
    """a modulo b: the sign follows b, or with ``fmod`` follows a."""

    name = "mod"
    onnx = Onnx("Mod", since=10)

    fmod: bool = False

    def compute(self, a: Dim, b: Dim) -> Dim:
        if not isinstance(a, int) or not isinstance(b, int) or a < 0 or b <= 0:
            return None
        return a % b

    def quant(self, a: TensorType, b: TensorType) -> QuantTraits:
        return QuantTraits()


class BitShift(_Arithmetic):
    """a shifted by b bits to the ``LEFT`` or ``RIGHT``; signed integers from opset 28 on."""

    name = "bit_shift"
    onnx = Onnx("BitShift", since=11)

    direction: Literal["LEFT", "RIGHT"]

    def infer(self, a: TensorType, b: TensorType) -> tuple[TensorType]:
        if not a.elem.is_integer:
            raise ValueError(f"a is {a.elem.text}, but integers are needed")
        return super().infer(a, b)

    def quant(self, a: TensorType, b: TensorType) -> QuantTraits:
        return QuantTraits()


class Pow(Op):
    """a to the power of b; the result has a's element type."""

    name = "pow"
    operands = ("a", "b")
    elementwise = True
    onnx = Onnx("Pow")

    def infer(self, a: TensorType, b: TensorType) -> tuple[TensorType]:
        return (TensorType(a.elem, broadcast_shapes(a.shape, b.shape)),)


class Min(Variadic):
    """The smallest of all operands."""

    name = "min"
    onnx = Onnx("Min", since=8)

    def compute(self, a: Dim, b: Dim) -> Dim:
        return a if _at_least(b, a) else b if _at_least(a, b) else None


class Max(Variadic):
    """The largest of all operands."""

    name = "max"
    onnx = Onnx("Max", since=8)

    def compute(self, a: Dim, b: Dim) -> Dim:
        return a if _at_least(a, b) else b if _at_least(b, a) else None


class Sum(Variadic):
    """The sum of all operands."""

    name = "sum"
    onnx = Onnx("Sum", since=8)


class Mean(Variadic):
    """The mean of all operands."""

    name = "mean"
    onnx = Onnx("Mean", since=8)


def _at_least(a: Dim, b: Dim) -> bool:
    """Whether a >= b is certain."""
    if a is None or b is None:
        return False
    bound = least(a - b)
    return bound is not None and bound >= 0
