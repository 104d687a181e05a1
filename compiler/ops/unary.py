"""Mathematical functions of one operand, element by element."""

from __future__ import annotations

from qdqc.ir.op import Onnx, Op
from qdqc.ir.types import Elem, TensorType
from qdqc.ops.inference import need_elem, typed
from qdqc.ops.pointwise import Pointwise

__all__ = [
    "Abs",
    "Acos",
    "Acosh",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "BitwiseNot",
    "Ceil",
    "Cos",
    "Cosh",
    "Erf",
    "Exp",
    "Floor",
    "IsInf",
    "IsNaN",
    "Log",
    "Neg",
    "Not",
    "Reciprocal",
    "Round",
    "Sign",
    "Sin",
    "Sinh",
    "Sqrt",
    "Tan",
]


class Abs(Pointwise):
    """The absolute value."""

    name = "abs"
    onnx = Onnx("Abs")
    not_negative = True


class Neg(Pointwise):
    """-x."""

    name = "neg"
    onnx = Onnx("Neg")

    def infer(self, x: TensorType) -> tuple[TensorType]:
        value = None if x.value is None else [None if d is None else d * -1 for d in x.value]
        return (typed(x.elem, x.shape, value),)


class Sign(Pointwise):
    """-1, 0 or 1."""

    name = "sign"
    onnx = Onnx("Sign", since=9)


class Exp(Pointwise):
    """e to the power of x."""

    name = "exp"
    onnx = Onnx("Exp")
    not_negative = True


class Log(Pointwise):
    """The natural logarithm."""

    name = "log"
    onnx = Onnx("Log")


class Sqrt(Pointwise):
    """The square root."""

    name = "sqrt"
    onnx = Onnx("Sqrt")
    not_negative = True


class Reciprocal(Pointwise):
    """1 / x."""

    name = "reciprocal"
    onnx = Onnx("Reciprocal")


class Erf(Pointwise):
    """The Gauss error function."""

    name = "erf"
    onnx = Onnx("Erf", since=9)
    fixed = (-1.0, 1.0)


class Floor(Pointwise):
    """The largest integer that is not above x."""

    name = "floor"
    onnx = Onnx("Floor")


class Ceil(Pointwise):
    """The smallest integer that is not below x."""

    name = "ceil"
    onnx = Onnx("Ceil")


class Round(Pointwise):
    """The nearest integer, halves to even."""

    name = "round"
    onnx = Onnx("Round", since=11)


class Sin(Pointwise):
    """Sine."""

    name = "sin"
    onnx = Onnx("Sin")
    fixed = (-1.0, 1.0)


class Cos(Pointwise):
    """Cosine."""

    name = "cos"
    onnx = Onnx("Cos")
    fixed = (-1.0, 1.0)


class Tan(Pointwise):
    """Tangent."""

    name = "tan"
    onnx = Onnx("Tan")


class Asin(Pointwise):
    """Inverse sine."""

    name = "asin"
    onnx = Onnx("Asin")


class Acos(Pointwise):
    """Inverse cosine."""

    name = "acos"
    onnx = Onnx("Acos")


class Atan(Pointwise):
    """Inverse tangent."""

    name = "atan"
    onnx = Onnx("Atan")


class Sinh(Pointwise):
    """Hyperbolic sine."""

    name = "sinh"
    onnx = Onnx("Sinh", since=9)


class Cosh(Pointwise):
    """Hyperbolic cosine."""

    name = "cosh"
    onnx = Onnx("Cosh", since=9)


class Asinh(Pointwise):
    """Inverse hyperbolic sine."""

    name = "asinh"
    onnx = Onnx("Asinh", since=9)


class Acosh(Pointwise):
    """Inverse hyperbolic cosine."""

    name = "acosh"
    onnx = Onnx("Acosh", since=9)


class Atanh(Pointwise):
    """Inverse hyperbolic tangent."""

    name = "atanh"
    onnx = Onnx("Atanh", since=9)


class Not(Pointwise):
    """Logical negation of booleans."""

    name = "not"
    onnx = Onnx("Not")

    def infer(self, x: TensorType) -> tuple[TensorType]:
        need_elem(x, "x", Elem.BOOL)
        value = None if x.value is None else [_negated(d) for d in x.value]
        return (typed(x.elem, x.shape, value),)


class BitwiseNot(Pointwise):
    """All bits of an integer flipped."""

    name = "bitwise_not"
    onnx = Onnx("BitwiseNot", since=18)

    def infer(self, x: TensorType) -> tuple[TensorType]:
        if not x.elem.is_integer:
            raise ValueError(f"x is {x.elem.text}, but integers are needed")
        return super().infer(x)


class _Test(Op):
    """What the functions share that give booleans."""

    operands = ("x",)
    elementwise = True

    def infer(self, x: TensorType) -> tuple[TensorType]:
        return (TensorType(Elem.BOOL, x.shape),)


class IsNaN(_Test):
    """Whether x is not a number."""

    name = "is_nan"
    onnx = Onnx("IsNaN", since=9)


class IsInf(_Test):
    """Whether x is infinite, of the signs that are asked for."""

    name = "is_inf"
    onnx = Onnx("IsInf", since=10)

    detect_negative: bool = True
    detect_positive: bool = True


def _negated(flag: object) -> int | None:
    return 1 - flag if isinstance(flag, int) else None
