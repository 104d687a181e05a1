"""What follows from a choice among numbers: indices of the best, boxes that are left."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.graph import Graph, Module
from qdqc.ir.op import Kind
from qdqc.ir.types import Elem, TensorType
from qdqc.ops import (
    ArgMax,
    ArgMin,
    Compress,
    Equal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    NonMaxSuppression,
    NonZero,
    TopK,
    Unique,
)

__all__ = ["NO_CHOICES", "Choices", "choices", "judged_values"]

_CHOOSERS = (ArgMax, ArgMin, Compress, NonMaxSuppression, NonZero, TopK, Unique)
_PREDICATES = (Equal, Greater, GreaterOrEqual, Less, LessOrEqual)
_LABELS = frozenset({Elem.BOOL, Elem.I32, Elem.I64, Elem.U32, Elem.U64})


@dataclass(frozen=True)
class Choices:
    """Names of values that a choice ``chosen`` made, and of the ``numbers`` that decide it.

    One step of a number may turn a choice, and then an index is another altogether, and so is
    what it picks. Whether a model chooses as another does is seen in the numbers; its choices are
    reported. ``sets`` are chosen rows whose order means nothing.
    """

    chosen: frozenset[str] = frozenset()
    numbers: tuple[str, ...] = ()
    sets: frozenset[str] = frozenset()

    def within(self, compared: Collection[str]) -> Choices:
        """The same, but all are judged where not all of the numbers are ``compared``."""
        return self if set(self.numbers) <= set(compared) else replace(self, chosen=frozenset())


NO_CHOICES = Choices()


def choices(module: Module) -> Choices:
    """The choices in a float module's top graph.

    What a product makes of chosen values are numbers again: routing is judged by its results.
    """
    return _Reader(module.graph).choices()


def judged_values(module: Module) -> list[str]:
    """Names of the float values by which deployments of a module are judged.

    They are its outputs, but for what follows from a choice, and the numbers that decide that:
    what a choice leaves may have another shape in another model.
    """
    decided = choices(module)
    names = [v.name for v in module.graph.outputs if v.is_float]
    return [n for n in dict.fromkeys([*names, *decided.numbers]) if n not in decided.chosen]


class _Reader:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._chosen: dict[Value, tuple[str, ...]] = {}
        self._sets: set[Value] = set()

    def choices(self) -> Choices:
        for node in self._graph.nodes():
            if node.traits.kind in (Kind.WEIGHTED, Kind.PRODUCT):
                continue
            sources = self._sources(node)
            own = _deciding(node)
            for result in node.present_results:
                picks = isinstance(node.op, _CHOOSERS) and not (
                    isinstance(node.op, TopK) and not _is_label(result)
                )
                if own and (picks or isinstance(node.op, _PREDICATES)):
                    self._chosen[result] = own
                elif sources and (_is_label(result) or not self._by_predicate(node)):
                    self._chosen[result] = sources
                if isinstance(node.op, NonMaxSuppression) or self._set_goes_on(node):
                    self._sets.add(result)
        numbers = dict.fromkeys(name for names in self._chosen.values() for name in names)
        names = frozenset(v.name for v in self._chosen)
        sets = frozenset(v.name for v in self._sets if v.name in names)
        return Choices(names, tuple(numbers), sets)

    def _sources(self, node: Node[Any]) -> tuple[str, ...]:
        """The numbers that decided a node's chosen operands."""
        every = (self._chosen.get(v, ()) for v in node.present_operands)
        return tuple(dict.fromkeys(name for names in every for name in names))

    def _by_predicate(self, node: Node[Any]) -> bool:
        """Whether a choice is a mask alone: what numbers it lets through are numbers."""
        chosen = [v for v in node.present_operands if v in self._chosen]
        return all(isinstance(v.type, TensorType) and v.type.elem is Elem.BOOL for v in chosen)

    def _set_goes_on(self, node: Node[Any]) -> bool:
        first = node.operands[0] if node.operands else None
        return first in self._sets and node.op.name in ("cast", "gather", "slice")


def _deciding(node: Node[Any]) -> tuple[str, ...]:
    """The float values among a chooser's operands, if it is one."""
    if not isinstance(node.op, (*_CHOOSERS, *_PREDICATES)):
        return ()
    return tuple(
        v.name
        for v in node.present_operands
        if not isinstance(v, Constant)
        and isinstance(v.type, TensorType)
        and v.type.expressed().elem.is_float
    )


def _is_label(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.type.elem in _LABELS
