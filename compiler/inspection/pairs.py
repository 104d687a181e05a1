"""Which value of a quantized module is which value of the float one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from qdqc.ir.core import Node, Value
from qdqc.ir.graph import Module
from qdqc.ir.types import Elem, Quant, TensorType
from qdqc.ops import CASTS, Quantize

__all__ = ["Pair", "pairs_of"]


@dataclass(frozen=True)
class Pair:
    """A value of the quantized module and the float value that it stands for.

    ``stored`` is the integer type that it is held in: its own, or that of the quantize behind
    it; None for a value that stays float. ``tap`` is the name by which it is looked at.
    """

    value: Value
    reference: Value
    stored: TensorType | None
    tap: str

    @property
    def name(self) -> str:
        """The name in the float module, which calibration tables and qtables use."""
        return self.reference.name

    @property
    def node(self) -> Node[Any] | None:
        """The node that makes it; None for an input of the graph."""
        return self.value.producer

    @property
    def quant(self) -> Quant | None:
        return None if self.stored is None else self.stored.quant


def pairs_of(quantized: Module, reference: Module) -> list[Pair]:
    """Float values of the top graphs that both modules have, in the quantized one's order.

    They are found by name, else by the ONNX node that both come from. Casts make no values of
    their own: ``quantize(x)`` is how x is held.
    """
    ours, theirs = _by_place(quantized), _by_place(reference)
    same_place = {ours[place]: other for place, other in theirs.items() if place in ours}
    named = {v: other for v in _values(quantized) if (other := _namesake(v, reference))}
    claimed = set(named.values())
    same_place = {v: other for v, other in same_place.items() if other not in claimed}
    pairs: list[Pair] = []
    taken: set[Value] = set()
    for value in _values(quantized):
        other = named.get(value) or same_place.get(value)
        if other is not None and other not in taken and _is_float(other):
            taken.add(other)
            pairs.append(Pair(value, other, _stored(value), _tap(value)))
    return pairs


def _values(module: Module) -> Iterator[Value]:
    yield from (v for v in module.graph.inputs if _is_float(v))
    for node in module.graph.nodes():
        if not isinstance(node.op, CASTS):
            yield from (r for r in node.present_results if _is_float(r))


def _is_float(value: Value) -> bool:
    type_ = value.type
    return isinstance(type_, TensorType) and type_.expressed().elem in (Elem.F32, Elem.F64)


def _namesake(value: Value, reference: Module) -> Value | None:
    other = reference.value(value.name)
    if other is None or other.graph is not reference.graph:
        return None
    return other if value.is_input == other.is_input else None


def _by_place(module: Module) -> dict[str, Value]:
    """Results by the last ONNX node that they stand for, where no other stands for it."""
    results: dict[str, list[Value]] = {}
    for value in _values(module):
        producer = value.producer
        if producer is not None and producer.loc.names:
            results.setdefault(producer.loc.names[-1], []).append(value)
    return {place: made[0] for place, made in results.items() if len(made) == 1}


def _stored(value: Value) -> TensorType | None:
    if value.tensor.quant is not None:
        return value.tensor
    return next((c.result.tensor for c in _casts(value)), None)


def _casts(value: Value) -> list[Node[Any]]:
    return [u for u in value.users if isinstance(u.op, Quantize)]


def _tap(value: Value) -> str:
    """Fetching the float in front of its only quantize could make a float kernel of it."""
    casts = _casts(value)
    hidden = casts and len(casts) == len(value.users) and not value.is_output
    return casts[0].result.name if hidden and not value.is_input else value.name
