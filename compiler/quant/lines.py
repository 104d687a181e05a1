"""Lines ``a x + b`` with numbers a > 0 and b: the integers of x under another scale.

A scale takes up a factor, and a zero point a summand that is a whole number of steps. Nothing is
computed, nothing is rounded once more, and the result's own range does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.op import Kind, QuantTraits
from qdqc.ir.types import Elem, Quant
from qdqc.ops import Add, Mul
from qdqc.quant.arithmetic import ALL_ZERO, activation_quant, numbers, quant_range
from qdqc.quant.clips import bounds_of

__all__ = ["Line", "align", "line_of"]

_OFF = 1 / 32
"""How far, in steps, a zero point may lie from where the summand puts it."""


@dataclass(frozen=True)
class Line:
    """``factor * source + offset`` with a positive factor."""

    source: Value
    factor: float = 1.0
    offset: float = 0.0

    def restated(self, quant: Quant, elem: Elem) -> Quant | None:
        """Scale and zero point under which integers of x are those of the line.

        None where there are none: the summand is no whole number of steps, or the zero point
        would lie beyond the integers.
        """
        if quant.axis is not None:
            return None
        scale = np.float32(self.factor * float(quant.scale))
        if not np.finfo(np.float32).tiny <= scale < math.inf:
            return None
        steps = self.offset / float(scale)
        low, high = elem.limits
        if abs(steps) > high - low or abs(steps - round(steps)) > _OFF:
            return None
        zero = int(quant.zero_point) - round(steps)
        return Quant.make(scale, zero) if low <= zero <= high else None


def line_of(node: Node[Any]) -> Line | None:
    """The line that a node is; None for another one, and for one with a clamp."""
    op = node.op
    if not isinstance(op, Add | Mul) or op.clamp is not None:
        return None
    a, b = node.need("a"), node.need("b")
    source, constant = (b, a) if isinstance(a, Constant) else (a, b)
    if not isinstance(constant, Constant) or isinstance(source, Constant):
        return None
    rank = source.tensor.rank
    if constant.data.is_elided or constant.data.size != 1 or rank is None:
        return None
    if len(constant.data.shape) > rank or constant.tensor.expressed().elem is not Elem.F32:
        return None
    number = float(numbers(constant).reshape(()))
    if not math.isfinite(number) or (isinstance(op, Mul) and number <= 0):
        return None
    return Line(source, offset=number) if isinstance(op, Add) else Line(source, factor=number)


def align(integer: Mapping[Node[Any], QuantTraits], elem: Elem) -> int:
    """Widen ranges a little, so that what lines of integer nodes add is whole steps.

    A range is widened where the steps that come of it are no coarser than the two roundings, of
    the line's operand and of its result, that one takes the place of. Returns how many were.
    """
    done: set[Value] = set()
    for node in integer:
        line = line_of(node)
        if line is None or line.offset == 0:
            continue
        root, factor = _root(line.source, integer)
        if root in done or not _is_free(root, integer):
            continue
        if _widen(root, Line(root, factor, line.offset), node.result, elem):
            done.add(root)
    return len(done)


def _root(value: Value, integer: Mapping[Node[Any], QuantTraits]) -> tuple[Value, float]:
    """The value whose scale decides that of another, and how much larger the latter is."""
    factor = 1.0
    while (node := value.producer) is not None and node in integer:
        line = line_of(node)
        if line is not None and line.offset == 0:
            value, factor = line.source, factor * line.factor
        elif integer[node].kind is Kind.PRESERVING and (source := node.at(0)) is not None:
            value = source
        else:
            break
    return value, factor


def _is_free(root: Value, integer: Mapping[Node[Any], QuantTraits]) -> bool:
    """Whether the calibrated range decides the scale of a value."""
    node = root.producer
    if isinstance(root, Constant) or root.range in (None, ALL_ZERO) or root.quant is not None:
        return False
    if node is None or node not in integer:
        return True
    return line_of(node) is None and integer[node].fixed is None


def _widen(root: Value, line: Line, result: Value, elem: Elem) -> bool:
    """Give the root a range of which the line's summand, and the zero of its result, are steps."""
    bounds = None if root.producer is None else bounds_of(root.producer)
    assert root.range is not None
    quant = activation_quant(root.range, elem, clamp=bounds)
    if line.restated(quant, elem) is not None or result.range is None:
        return False
    own = root.range if bounds is None else quant_range(quant, elem)
    zero = -line.offset / line.factor  # where the result is 0
    low, high = min(own.min, zero, 0.0), max(own.max, zero, 0.0)
    levels = elem.limits[1] - elem.limits[0]
    steps = math.floor(abs(zero) * levels / (high - low))
    if steps == 0:
        return False
    scale = abs(zero) / steps
    two = math.hypot(float(quant.scale), _scale(result, elem) / line.factor)
    wide = Quant.make(np.float32(scale), elem.limits[0] + round(-low / scale))
    if scale > two or (bounds is not None and low < own.min):
        return False
    range_ = quant_range(wide, elem)
    given = activation_quant(range_, elem, clamp=bounds)
    if given != wide or line.restated(given, elem) is None:
        return False
    root.type = root.tensor.with_range(range_)
    return True


def _scale(value: Value, elem: Elem) -> float:
    assert value.range is not None
    return float(activation_quant(value.range, elem).scale)
