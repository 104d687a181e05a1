"""Which values of a module can be looked at while it runs as it would without anybody looking.

A quantized value is fetched as integers and dequantized here: fetching its float view, or the
float before a quantize, would make a float kernel of an integer one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from compiler.diagnostics import QdqcError, suggestion
from compiler.ir.core import Value
from compiler.ir.graph import Module
from compiler.ir.types import Quant, TensorType
from compiler.ops import Dequantize, Quantize
from compiler.quant.arithmetic import dequantize

__all__ = ["Tap", "observable_names", "tap_of"]


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
    return Tap(value.name, _quant(value))


def _quant(value: Value) -> Quant | None:
    return value.type.quant if isinstance(value.type, TensorType) else None


def observable_names(module: Module) -> list[str]:
    """Tensors of the top graph by name, inputs first, that taps leave as they run.

    In a lowered module that is one name for each quantized value: its float view. Weights are
    no such values.
    """
    found = [v.name for v in module.graph.inputs if isinstance(v.type, TensorType)]
    for node in module.graph.nodes():
        for result in node.present_results:
            if isinstance(result.type, TensorType) and not _is_inner(result):
                found.append(result.name)
    return found


def _is_inner(value: Value) -> bool:
    """Whether a lowered value stands for another: its float before, its integers, a weight."""
    if value.is_output:
        return False
    producer = value.producer
    users = value.users
    if producer is not None and isinstance(producer.op, Quantize):
        return any(isinstance(u.op, Dequantize) for u in users)
    if producer is not None and isinstance(producer.op, Dequantize):
        return producer.need("x").graph is None
    return bool(users) and all(isinstance(u.op, Quantize) for u in users)
