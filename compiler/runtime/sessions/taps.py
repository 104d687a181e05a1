"""Which values of a module can be looked at while it runs as it would without anybody looking.

A quantized value is fetched as integers and dequantized here: fetching its float view, or the
float before a quantize, would make a float kernel of an integer one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from qdqc.diagnostics import QdqcError, suggestion
from qdqc.ir.core import Value
from qdqc.ir.graph import Module
from qdqc.ir.types import Quant, TensorType
from qdqc.ops import Dequantize, Quantize
from qdqc.quant.arithmetic import dequantize

__all__ = ["Tap", "observable", "quant_of", "stored_name", "tap_of"]


@dataclass(frozen=True)
class Tap:
    """What is fetched for a name: the value itself, or integers with what they stand for."""

    fetched: str
    quant: Quant | None = None

    def shown(self, array: npt.NDArray[Any], *, fixed: bool = False) -> npt.NDArray[Any]:
        """The fetched array as numbers; ``fixed`` leaves integers as they are stored."""
        return array if self.quant is None or fixed else dequantize(array, self.quant)


def tap_of(module: Module, name: str) -> Tap:
    """The tap of a value of a lowered module. Raises QdqcError for an unknown name."""
    value: Value | None = module.value(name)
    if value is None:
        value = module.value(f"{name}_q")
    if value is None:
        raise QdqcError(f"no value '%{name}' to look at{suggestion(name, module.value_names())}")
    producer = value.producer
    if producer is not None and isinstance(producer.op, Dequantize):
        value = producer.need("x")
    return Tap(value.name, quant_of(value))


def stored_name(module: Module, name: str) -> str:
    """The name of the integers behind a float view, as lowering joins views; else the name."""
    value = module.value(name)
    producer = None if value is None else value.producer
    is_view = producer is not None and isinstance(producer.op, Dequantize)
    return producer.need("x").name if producer is not None and is_view else name


def quant_of(value: Value) -> Quant | None:
    """Scale and zero point of a value that holds integers; None for any other."""
    return value.type.quant if isinstance(value.type, TensorType) else None


def observable(module: Module) -> dict[str, Tap]:
    """Tensors of a lowered module's top graph by name, inputs first, that taps leave as they run.

    A quantized value has one name, that of the value before it was quantized, and is looked at
    as the model computes with it: rounded. Weights are no such values.
    """
    found = {v.name: Tap(v.name) for v in module.graph.inputs if isinstance(v.type, TensorType)}
    for node in module.graph.nodes():
        for result in node.present_results:
            if isinstance(result.type, TensorType):
                found |= _seen_as(result)
    return found


def _seen_as(value: Value) -> dict[str, Tap]:
    """The name and tap of a result; none for what stands for another value."""
    if value.is_output:
        return {value.name: Tap(value.name)}
    producer = value.producer
    if producer is not None and isinstance(producer.op, Quantize):
        source = producer.need("x")
        views = _views(value)
        if not views:
            return {value.name: Tap(value.name, quant_of(value))}
        takes_source = _is_only_quantized(source) and views[0].startswith(source.name)
        return {source.name if takes_source else views[0]: Tap(value.name, quant_of(value))}
    if producer is not None and isinstance(producer.op, Dequantize):
        stored = producer.need("x")
        stands_for = stored.producer is None or isinstance(stored.producer.op, Quantize)
        return {} if stands_for else {value.name: Tap(stored.name, quant_of(stored))}
    return {} if _is_only_quantized(value) else {value.name: Tap(value.name)}


def _is_only_quantized(value: Value) -> bool:
    casts = [isinstance(u.op, Quantize) for u in value.users]
    return bool(casts) and all(casts) and not value.is_output and not value.is_input


def _views(stored: Value) -> list[str]:
    """Names of the float views of stored integers."""
    return [u.result.name for u in stored.users if isinstance(u.op, Dequantize)]
