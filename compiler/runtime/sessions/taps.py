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
from qdqc.quant.lowered import is_only_quantized, joint_name

__all__ = ["Tap", "observable", "tap_of"]


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
        raise QdqcError(f"no value '%{name}' to look at{suggestion(name, module.value_names())}")
    producer = value.producer
    if producer is not None and isinstance(producer.op, Dequantize):
        value = producer.need("x")
    return Tap(value.name, value.quant)


def observable(module: Module) -> dict[str, Tap]:
    """Tensors of a lowered module's top graph by name, inputs first, that taps leave as they run.

    A quantized value has one name, that of the value before it was quantized, and is looked at
    as the model computes with it: rounded. Weights are no such values.
    """
    taps = {v.name: Tap(v.name) for v in module.graph.inputs if isinstance(v.type, TensorType)}
    for node in module.graph.nodes():
        for result in node.present_results:
            if isinstance(result.type, TensorType):
                taps |= _seen_as(result)
    return taps


def _seen_as(value: Value) -> dict[str, Tap]:
    """The name and tap of a result; none for what stands for another value."""
    if value.is_output:
        return {value.name: Tap(value.name)}
    producer = value.producer
    if producer is not None and isinstance(producer.op, Quantize):
        source = producer.need("x")
        view = next((u.result for u in value.users if isinstance(u.op, Dequantize)), value)
        name = joint_name(source, value) if is_only_quantized(source) else view.name
        return {name: Tap(value.name, value.quant)}
    if producer is not None and isinstance(producer.op, Dequantize):
        stored = producer.need("x")
        stands_for = stored.producer is None or isinstance(stored.producer.op, Quantize)
        return {} if stands_for else {value.name: Tap(stored.name, stored.quant)}
    return {} if is_only_quantized(value) else {value.name: Tap(value.name)}
