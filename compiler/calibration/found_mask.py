"""The mask among a model's inputs, as what the graph does with it shows.

An input is followed to where it meets data. What its elements become on the way there is
computed beside it for 0 and for 1: a mask brings a score to thousands below zero, or a number to
zero, where it is 0 and not where it is 1. An input that says the opposite is none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

import numpy as np

from qdqc.data.fit import Sample
from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.graph import Graph
from qdqc.ir.types import Elem, TensorType
from qdqc.ops import (
    Add,
    And,
    Attention,
    Cast,
    Clip,
    Div,
    Equal,
    Expand,
    Flatten,
    Gather,
    Greater,
    GreaterOrEqual,
    Identity,
    Less,
    LessOrEqual,
    LogSoftmax,
    MatMul,
    Max,
    Min,
    Mul,
    Neg,
    Not,
    Or,
    ReduceMax,
    ReduceMean,
    ReduceSum,
    Reshape,
    Shape,
    Size,
    Slice,
    Softmax,
    Squeeze,
    Sub,
    Tile,
    Transpose,
    Unsqueeze,
    Where,
)

__all__ = ["found_mask", "shows_padding"]

_FAR = 1000.0
"""A score that is so far below the others has no weight after a softmax."""

_STEPS = 8
"""Nodes between a masked score and the softmax that is looked for."""

_MOVES = (Identity, Reshape, Flatten, Transpose, Squeeze, Unsqueeze, Expand, Tile, Slice, Gather)
_SUMS = (ReduceSum, ReduceMean, ReduceMax)
_SOFTMAX = (Softmax, LogSoftmax)
_BETWEEN = (*_MOVES, Add, Sub, Mul, Div, Where, Min, Max, Clip, Cast)

Number: TypeAlias = float | None
"""None is a number that is not known, taken for small beside one of thousands."""

Rule: TypeAlias = Callable[[list[Number]], Number]


@dataclass(frozen=True)
class _Seen:
    """What elements are ``padded``, where the input is 0, and ``kept``, where it is 1.

    Once summed over, they belong to no position any more.
    """

    padded: Number
    kept: Number
    summed: bool = False

    @property
    def hides(self) -> bool:
        """Whether, added to scores, it takes those at padding away, and no others."""
        return _is_far(self.padded) and not _is_far(self.kept)

    @property
    def clears(self) -> bool:
        """Whether, multiplied, it leaves zero of padding, and not of the rest."""
        return self.padded == 0 and self.kept != 0


class _Use(Enum):
    """How a node reads a mask beside data."""

    HIDES = "it takes scores at padding out of a softmax"
    POOLS = "it takes padding out of what is summed over positions"
    FITS = "a mask may be read so"
    OTHER = "no mask is read so"


def found_mask(graph: Graph) -> str | None:
    """The input that says with 0 where padding stands; None where none does, or several do.

    It has the shape [batch, positions], which another input begins with. It hides scores of a
    softmax, and is read for nothing that no mask is read for. Where no position looks at others,
    it may weigh what is summed over them instead.
    """
    uses = {v.name: _uses(v, graph) for v in graph.inputs if _has_positions(v, graph)}
    masks = [name for name, seen in uses.items() if _Use.OTHER not in seen]
    looks = any(isinstance(node.op, (*_SOFTMAX, Attention)) for node in graph.walk())
    wanted = _Use.HIDES if looks else _Use.POOLS
    shown = [name for name in masks if wanted in uses[name]]
    return shown[0] if len(shown) == 1 else None


def shows_padding(samples: Iterable[Sample], name: str) -> bool:
    """Whether the input is a mask by the data: 0 or 1 in all samples, and 0 somewhere.

    A sample that is nothing but padding is none of texts.
    """
    padded = False
    for sample in samples:
        mask = np.asarray(sample[name])
        kept = mask == 1
        if not kept.any() or not (kept | (mask == 0)).all():
            return False
        padded |= not kept.all()
    return padded


def _has_positions(value: Value, graph: Graph) -> bool:
    shape = _shape(value)
    if len(shape) != 2 or None in shape:
        return False
    return any(v is not value and _shape(v)[:2] == shape for v in graph.inputs)


def _shape(value: Value) -> tuple[Any, ...]:
    return (value.type.shape or ()) if isinstance(value.type, TensorType) else ()


def _uses(mask: Value, graph: Graph) -> set[_Use]:
    """How the input, and what is made of it alone, are read."""
    data = _data(graph, [v for v in graph.inputs if v is not mask])
    seen = {mask: _Seen(0.0, 1.0)}
    uses: set[_Use] = set()
    for node in graph.nodes():
        places = [i for i, v in enumerate(node.operands) if v in seen]
        if not places or isinstance(node.op, Shape | Size):
            continue
        if any(v in data for v in node.operands):
            uses.add(_use(node, places, seen))
            continue
        made = _made(node, places, seen)
        if made is None:
            return {_Use.OTHER}
        seen[node.result] = made
    if any(v.is_output or any(u.graph is not graph for u in v.users) for v in seen):
        uses.add(_Use.OTHER)
    return uses


def _data(graph: Graph, sources: Iterable[Value]) -> Collection[Value]:
    """Values that depend on the numbers of these, and not on their shapes alone."""
    nested = [r for n in graph.walk() if n.graphs for r in n.present_results]
    reached, pending = set[Value](), [*sources, *nested]
    while pending:
        value = pending.pop()
        if value not in reached:
            reached.add(value)
            readers = (n for n in value.users if not isinstance(n.op, Shape | Size))
            pending += [r for n in readers for r in n.present_results]
    return reached


def _made(node: Node[Any], places: list[int], seen: dict[Value, _Seen]) -> _Seen | None:
    """What a node makes of masks and of what no data change; None where that is not known."""
    op, operands = node.op, [v for v in node.operands if v is not None]
    if isinstance(op, (*_MOVES, *_SUMS)):
        if places != [0]:
            return None
        return seen[operands[0]] if isinstance(op, _MOVES) else _Seen(None, None, summed=True)
    rule = _rule(node)
    if rule is None or getattr(op, "clamp", None) is not None:
        return None
    given = [seen.get(v) or _always(v) for v in operands]
    padded, kept = rule([g.padded for g in given]), rule([g.kept for g in given])
    return _Seen(padded, kept, any(g.summed for g in given))


def _always(value: Value) -> _Seen:
    """What does not depend on the mask."""
    number = _uniform(value)
    return _Seen(number, number)


def _rule(node: Node[Any]) -> Rule | None:
    """What the op computes, number by number."""
    op = node.op
    if isinstance(op, Clip):
        return _known(lambda n: min(max(n, op.min), op.max))
    if isinstance(op, Cast):
        return _known(bool) if node.result.elem is Elem.BOOL else _known(float)
    return _NUMBERS.get(type(op))


def _use(node: Node[Any], places: list[int], seen: dict[Value, _Seen]) -> _Use:
    """How a node that reads data as well reads the mask."""
    place, op = places[0], node.op
    value = node.operands[place]
    if len(places) > 1 or value is None:
        return _Use.OTHER
    read = seen[value]
    if read.summed:
        return _Use.FITS if isinstance(op, Mul | Div) else _Use.OTHER
    match op:
        case Attention() if op.operand_specs[place].name == "mask":
            hides = read.clears if value.elem is Elem.BOOL else read.hides
        case Add():
            hides = read.hides and _leads(node, _SOFTMAX)
        case Sub() if place == 1:
            turned = _Seen(_negative([read.padded]), _negative([read.kept]))
            hides = turned.hides and _leads(node, _SOFTMAX)
        case Where() if place == 0:
            return _selected(node, read)
        case Mul() if read.clears:
            return _Use.POOLS if _leads(node, _SUMS) else _Use.FITS
        case MatMul() if read.clears:
            return _Use.POOLS
        case _:
            hides = False
    return _Use.HIDES if hides else _Use.OTHER


def _selected(node: Node[Where], read: _Seen) -> _Use:
    """How a Where by the mask reads it: it puts one number in the place of padding."""
    if read.padded is None or read.padded == read.kept:
        return _Use.OTHER
    put = _uniform(node.need("a" if read.padded else "b"))
    if _is_far(put):
        return _Use.HIDES if _leads(node, _SOFTMAX) else _Use.FITS
    if put == 0:
        return _Use.POOLS if _leads(node, _SUMS) else _Use.FITS
    return _Use.OTHER


def _leads(node: Node[Any], goals: tuple[type[Any], ...]) -> bool:
    """Whether the result comes to one of these ops, through what leaves positions in place."""
    reached = {node}
    for _ in range(_STEPS):
        readers = {user for n in reached for r in n.present_results for user in r.users}
        if any(isinstance(n.op, goals) for n in readers):
            return True
        reached = {n for n in readers if isinstance(n.op, _BETWEEN)}
    return False


def _uniform(value: Value) -> Number:
    """The number that all elements of a constant are."""
    if not isinstance(value, Constant) or value.data.is_elided or not value.data.size:
        return None
    array = value.data.array()
    first = array.reshape(-1)[0]
    return float(first) if (array == first).all() else None


def _is_far(number: Number) -> bool:
    return number is not None and number <= -_FAR


def _known(of: Callable[..., float]) -> Rule:
    """A function of numbers that are all known."""

    def made(numbers: list[Number]) -> Number:
        return None if None in numbers else float(of(*numbers))

    return made


def _sum(numbers: list[Number]) -> Number:
    if None not in numbers:
        return math.fsum(n for n in numbers if n is not None)
    return next((n for n in numbers if n is not None and abs(n) >= _FAR), None)


def _product(numbers: list[Number]) -> Number:
    if 0 in numbers:
        return 0.0
    return _known(lambda *known: math.prod(known))(numbers)


def _least(numbers: list[Number]) -> Number:
    far = [n for n in numbers if _is_far(n)]
    return far[0] if far else _known(min)(numbers)


def _all(numbers: list[Number]) -> Number:
    return 0.0 if 0 in numbers else _known(lambda *_: 1.0)(numbers)


def _any(numbers: list[Number]) -> Number:
    true = any(n for n in numbers if n is not None)
    return 1.0 if true else _known(lambda *_: 0.0)(numbers)


def _choice(numbers: list[Number]) -> Number:
    condition, a, b = numbers
    if condition is None:
        return a if a == b else None
    return a if condition else b


_negative = _known(lambda n: -n)

_NUMBERS: dict[type[Any], Rule] = {
    Add: _sum,
    Sub: lambda n: _sum([n[0], _negative(n[1:])]),
    Mul: _product,
    Div: _known(lambda a, b: a / b if b else math.nan),
    Neg: _negative,
    Min: _least,
    Max: _known(max),
    And: _all,
    Or: _any,
    Not: _known(lambda n: not n),
    Equal: _known(lambda a, b: a == b),
    Greater: _known(lambda a, b: a > b),
    GreaterOrEqual: _known(lambda a, b: a >= b),
    Less: _known(lambda a, b: a < b),
    LessOrEqual: _known(lambda a, b: a <= b),
    Where: _choice,
}
