"""What rules need to know of shapes with symbols."""

from __future__ import annotations

from typing import Any

from qdqc.ir.core import Node, Value
from qdqc.ir.dims import Dim, Expr
from qdqc.ir.types import TensorType

__all__ = ["inferred_shape", "reshape_target", "same_shape"]


def inferred_shape(node: Node[Any]) -> tuple[Dim, ...] | None:
    """The shape of a result as it follows from the operands.

    A type that the source states may be an example's: exporters write sizes of the run that they
    traced for inner values of a model with symbols.
    """
    type = node.op.infer_node(node)[0]
    return type.shape if isinstance(type, TensorType) else None


def same_shape(a: Value, b: Value) -> bool:
    """Whether both shapes are known and equal, symbols included."""
    left, right = a.shape, b.shape
    return left is not None and left == right and None not in left


def reshape_target(
    target: tuple[Dim, ...], source: tuple[Dim, ...] | None, allowzero: bool
) -> list[int] | None:
    """Numbers for a Reshape; None when they can't be said: two unknown ones, or -1 beside 0."""
    out: list[int] = []
    for index, dim in enumerate(target):
        same_place = source[index] if source is not None and index < len(source) else None
        if isinstance(dim, int):
            out.append(dim)
        elif isinstance(dim, Expr) and dim == same_place and not allowzero:
            out.append(0)
        else:
            out.append(-1)
    empty = allowzero and 0 in out and -1 in out
    return out if out.count(-1) <= 1 and not empty else None
