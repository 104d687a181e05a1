"""Conversions of the element type."""

from __future__ import annotations

from typing import Literal

from qdqc.ir.dims import Dim, Expr
from qdqc.ir.op import Onnx, Op
from qdqc.ir.types import Elem, TensorType
from qdqc.ops.inference import elem_named, typed

__all__ = ["BitCast", "Cast", "CastLike"]

_WIDE = (Elem.I64, Elem.I32, Elem.U64, Elem.U32)


def _converted(value: Dim, elem: Elem) -> Dim:
    """A dimension after the conversion; None where it is unknown."""
    if elem is Elem.BOOL:
        return int(value != 0) if isinstance(value, int) else None
    if isinstance(value, Expr):
        return value if elem in _WIDE else None
    if value is None or not elem.is_integer:
        return None
    low, high = elem.limits
    return value if low <= value <= high else None


class Cast(Op):
    """x as elements of type ``to``, by its name in the text.

    ``saturate`` and ``round_mode`` concern conversions to 8-bit floats.
    """

    name = "cast"
    operands = ("x",)
    elementwise = True
    onnx = Onnx("Cast", elems=("to",), field_since={"saturate": 19, "round_mode": 24})

    to: str
    saturate: bool = True
    round_mode: Literal["up", "down", "nearest"] = "up"

    def infer(self, x: TensorType) -> tuple[TensorType]:
        elem = elem_named(self.to)
        value = None if x.value is None else [_converted(d, elem) for d in x.value]
        return (typed(elem, x.shape, value),)


class CastLike(Op):
    """x as elements of the type that ``target`` has."""

    name = "cast_like"
    operands = ("x", "target")
    onnx = Onnx("CastLike", since=15, field_since={"saturate": 19, "round_mode": 24})

    saturate: bool = True
    round_mode: Literal["up", "down", "nearest"] = "up"

    def infer(self, x: TensorType, target: TensorType) -> tuple[TensorType]:
        value = None if x.value is None else [_converted(d, target.elem) for d in x.value]
        return (typed(target.elem, x.shape, value),)


class BitCast(Op):
    """The bits of x as elements of type ``to``, which are as wide."""

    name = "bit_cast"
    operands = ("x",)
    onnx = Onnx("BitCast", since=26, elems=("to",))

    to: str

    def infer(self, x: TensorType) -> tuple[TensorType]:
        elem = elem_named(self.to)
        if elem.bits != x.elem.bits:
            raise ValueError(f"{elem.text} has {elem.bits} bits, but {x.elem.text} {x.elem.bits}")
        return (TensorType(elem, x.shape),)
