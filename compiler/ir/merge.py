"""Two opinions on one type: whether they can both hold, and what they say together."""

from __future__ import annotations

from dataclasses import replace

from qdqc.ir.dims import Dim, Expr
from qdqc.ir.types import TensorType, Type

__all__ = ["compatible", "merge_types"]


def _same_dim(a: Dim, b: Dim) -> bool:
    return not (isinstance(a, int) and isinstance(b, int)) or a == b


def compatible(a: Type, b: Type) -> bool:
    """Whether both may describe one value: no two known facts contradict each other.

    Scales and ranges are compared by nobody here: a quantized type counts as float32.
    """
    if not isinstance(a, TensorType) or not isinstance(b, TensorType):
        return type(a) is type(b)
    a, b = a.expressed(), b.expressed()
    if a.elem is not b.elem:
        return False
    if a.shape is None or b.shape is None:
        return True
    return len(a.shape) == len(b.shape) and all(map(_same_dim, a.shape, b.shape))


def merge_types(first: Type, second: Type) -> Type:
    """``first`` with what ``second`` knows better: a number over a symbol over nothing.

    Element type, quantization and range stay those of ``first``; the types must be compatible.
    """
    if not isinstance(first, TensorType) or not isinstance(second, TensorType):
        return first
    if first.shape is None or second.shape is None:
        shape = second.shape if first.shape is None else first.shape
    else:
        shape = tuple(map(_better, first.shape, second.shape))
    value = first.value if second.value is None else second.value
    return replace(first, shape=shape, value=value)


def _better(first: Dim, second: Dim) -> Dim:
    if isinstance(first, int) or second is None:
        return first
    return second if isinstance(second, int) or not isinstance(first, Expr) else first
