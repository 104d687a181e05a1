"""One stage of a module for other viewers: notes for ONNX files, pictures for Graphviz."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from qdqc.inspection.difference import brief_type
from qdqc.inspection.measure import Figures, Measured
from qdqc.ir.clone import clone
from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.graph import Module
from qdqc.ir.spelling import print_type
from qdqc.ir.types import TensorType
from qdqc.ir.view import to_dot
from qdqc.onnx_io.annotated import annotated_model
from qdqc.quant.lowering import lower
from qdqc.text.printer import print_node

__all__ = ["stage_dot", "stage_notes", "stage_onnx"]

_INTEGER, _FLOAT = "#9fd3a8", "#f0c27f"


def stage_notes(module: Module, measured: Measured | None = None) -> dict[str, dict[str, str]]:
    """By the name of each value its precision, range, scale and IR text, and measured errors."""
    figures = _by_value(measured)
    values = [*module.graph.inputs, *(r for n in module.walk() for r in n.present_results)]
    return {v.name: _notes(v, figures.get(v.name)) for v in values}


def _notes(value: Value, figures: Figures | None) -> dict[str, str]:
    notes = {"type": print_type(value.type, elide=True)}
    type_ = value.type
    if isinstance(type_, TensorType):
        notes["precision"] = type_.elem.text
        if type_.range is not None:
            notes["range"] = f"{type_.range.min:.9g} {type_.range.max:.9g}"
            notes["threshold"] = f"{type_.range.threshold:.9g}"
        if type_.quant is not None and type_.quant.scale.ndim == 0:
            notes["scale"] = f"{float(type_.quant.scale):.9g}"
            notes["zero_point"] = str(int(type_.quant.zero_point))
    if value.producer is not None:
        notes |= _node_notes(value.producer)
    if figures is not None:
        notes["sqnr"] = f"{figures.sqnr:.2f}"
        notes["outside"] = f"{figures.outside:.6g}"
    return notes


def _node_notes(node: Node[Any]) -> dict[str, str]:
    notes = {"mode": node.mode} if node.mode else {}
    if not node.graphs:
        notes["ir"] = print_node(node, elide=True).partition(" loc(")[0]
    weight = node.at(node.traits.weight)
    if isinstance(weight, Constant):
        notes["weight"] = brief_type(weight.tensor)
    return notes


def stage_dot(module: Module, measured: Measured | None = None) -> str:
    """DOT text with types on the edges; nodes are green for integers and orange for float, or
    from red (0 dB) to green (40 dB) where errors were measured.
    """
    figures = _by_value(measured)
    fills: dict[Node[Any], str] = {}
    for node in module.graph.nodes():
        measured_figures = figures.get(node.name)
        if measured_figures is not None:
            fills[node] = _by_sqnr(measured_figures.sqnr)
        elif measured is None and node.present_results:
            fills[node] = _by_type(node.present_results[0])
    return to_dot(module.graph, fills)


def stage_onnx(module: Module, measured: Measured | None = None) -> Any:
    """A module of any stage as a ModelProto that runs, with its notes. Raises QdqcError."""
    lowered = clone(module)
    parts = lower(lowered)
    return annotated_model(lowered, stage_notes(module, measured), parts.value_of)


def _by_type(value: Value) -> str:
    return _FLOAT if value.quant is None else _INTEGER


def _by_sqnr(decibels: float) -> str:
    """Hue, saturation and value as Graphviz has them."""
    share = 1.0 if math.isinf(decibels) else min(1.0, max(0.0, decibels / 40))
    return f"{share / 3:.3f} 0.45 0.9"


def _by_value(measured: Measured | None) -> Mapping[str, Figures]:
    return {} if measured is None else {f.pair.value.name: f for f in measured.figures}
