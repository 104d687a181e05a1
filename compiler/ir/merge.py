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


def merge_types(held: Type, found: Type) -> Type:
    """``held`` with what ``found`` knows better: a number over a symbol over nothing.

    Element type, quantization and range stay those of ``held``; the types must be compatible.
    """
    if not isinstance(held, TensorType) or not isinstance(found, TensorType):
        return held
    if held.shape is None or found.shape is None:
        shape = found.shape if held.shape is None else held.shape
    else:
        shape = tuple(map(_better, held.shape, found.shape))
    value = held.value if found.value is None else found.value
    return replace(held, shape=shape, value=value)


def _better(held: Dim, found: Dim) -> Dim:
    if isinstance(held, int) or found is None:
        return held
    return found if isinstance(found, int) or not isinstance(held, Expr) else held
