"""What a chain of sums and products comes to, however it is associated and ordered.

Exporters write one formula in many ways: ``0.5 * x * (1 + erf)``, ``x * (0.5 + 0.5 * erf)``.
Rules that ask for the terms of the whole chain need only know the formula.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.types import Elem
from qdqc.ops import Add, Div, Mul, Neg, Pow, Sub
from qdqc.rewrite.rewriter import Rewriter

__all__ = ["Affine", "Algebra", "Terms"]

Terms = dict[tuple[Value, ...], float]
"""A polynomial: the coefficient of each product of values; ``()`` holds the constant."""

_MOST_TERMS = 8
_DEPTH = 12


@dataclass(frozen=True)
class Affine:
    """scale * value + offset."""

    scale: float
    offset: float
    value: Value


class Algebra:
    """Reads the nodes above a rule's root that exist for the root alone.

    A value is dissolved into what makes it where nobody else reads it, it is not a graph output,
    and its node has the precision and the graph of the root. All others are atoms.
    """

    def __init__(self, rw: Rewriter) -> None:
        self._root = rw.root
        self._rw = rw

    def belongs(self, value: Value) -> Node[Any] | None:
        """The node that makes a value for the root's chain alone; None for any other value."""
        node = value.producer
        if node is None or value.graph is not self._root.graph or node.mode != self._root.mode:
            return None
        alone = len({use.user for use in value.uses}) == 1 and not value.is_output
        return node if alone else None

    def number(self, value: Value | None) -> float | None:
        """The number of a float constant with one element, in its shortest form."""
        array = self._rw.array(value)
        if array is None or array.size != 1 or not isinstance(value, Constant):
            return None
        if value.tensor.elem not in (Elem.F32, Elem.F16, Elem.F64):
            return None
        return float(str(array.reshape(())[()]))

    def terms(self, value: Value) -> Terms:
        """The polynomial that a value is; one that grows too large is an atom itself."""
        terms = self._terms(value, 0)
        return {(value,): 1.0} if terms is None else terms

    def _terms(self, value: Value, depth: int) -> Terms | None:
        number = self.number(value)
        if number is not None:
            return {(): number}
        is_root = value.producer is self._root
        node = self._root if is_root else self.belongs(value)
        if node is None or depth > _DEPTH or node.op.clamp is not None:
            return {(value,): 1.0}
        parts = self._parts(node, depth)
        if parts is None:
            return {(value,): 1.0}
        return parts if len(parts) <= _MOST_TERMS else None

    def _parts(self, node: Node[Any], depth: int) -> Terms | None:
        """The polynomial of a sum, a product or an integer power; None for other nodes."""
        if isinstance(node.op, Neg):
            return _times(self._operand(node, 0, depth), {(): -1.0})
        if not isinstance(node.op, Add | Sub | Mul | Div | Pow):
            return None
        left = self._operand(node, 0, depth)
        if isinstance(node.op, Pow):
            return _power(left, self.number(node.operands[1]))
        if isinstance(node.op, Div):
            divisor = self.number(node.operands[1])
            return _times(left, {(): 1 / divisor}) if divisor else None
        right = self._operand(node, 1, depth)
        if isinstance(node.op, Mul):
            return _times(left, right)
        return _plus(left, right, -1.0 if isinstance(node.op, Sub) else 1.0)

    def _operand(self, node: Node[Any], index: int, depth: int) -> Terms | None:
        value = node.operands[index]
        return None if value is None else self._terms(value, depth + 1)

    def affine(self, value: Value) -> Affine:
        """A value as scale * x + offset, where x is the first that is more than that."""
        scale, offset = 1.0, 0.0
        for _ in range(_DEPTH):
            node = self.belongs(value)
            step = None if node is None else self._step(node)
            if step is None:
                break
            scale, offset, value = scale * step.scale, scale * step.offset + offset, step.value
        return Affine(scale, offset, value)

    def _step(self, node: Node[Any]) -> Affine | None:
        if node.op.clamp is not None:
            return None
        if isinstance(node.op, Neg):
            return Affine(-1.0, 0.0, node.need("x"))
        if not isinstance(node.op, Add | Sub | Mul | Div):
            return None
        a, b = node.need("a"), node.need("b")
        left, right = self.number(a), self.number(b)
        if (left is None) == (right is None):
            return None
        if right is not None:
            if isinstance(node.op, Div):
                return Affine(1 / right, 0.0, a) if right else None
            if isinstance(node.op, Mul):
                return Affine(right, 0.0, a)
            return Affine(1.0, -right if isinstance(node.op, Sub) else right, a)
        assert left is not None
        if isinstance(node.op, Div):
            return None
        if isinstance(node.op, Mul):
            return Affine(left, 0.0, b)
        return Affine(-1.0 if isinstance(node.op, Sub) else 1.0, left, b)


def _plus(a: Terms | None, b: Terms | None, sign: float) -> Terms | None:
    if a is None or b is None:
        return None
    total = dict(a)
    for key, factor in b.items():
        total[key] = total.get(key, 0.0) + sign * factor
    return total


def _times(a: Terms | None, b: Terms | None) -> Terms | None:
    if a is None or b is None or len(a) * len(b) > _MOST_TERMS:
        return None
    total: Terms = {}
    for (left, x), (right, y) in product(a.items(), b.items()):
        key = tuple(sorted((*left, *right), key=lambda v: v.name))
        total[key] = total.get(key, 0.0) + x * y
    return total


def _power(base: Terms | None, exponent: float | None) -> Terms | None:
    if exponent not in (2.0, 3.0):
        return None
    square = _times(base, base)
    return square if exponent == 2.0 else _times(square, base)
