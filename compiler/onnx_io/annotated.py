"""A model to be looked at: what is known of each value stands beside it as metadata."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from onnx import ModelProto

from qdqc.ir.graph import Module
from qdqc.onnx_io.exporter import export_onnx, export_parts

__all__ = ["annotated_model"]

_PREFIX = "qdqc."
_IR_VERSION = 10
"""The first that has metadata at nodes and values."""


def annotated_model(
    lowered: Module,
    notes: Mapping[str, Mapping[str, str]],
    value_of: Callable[[str], str] = lambda tensor: tensor,
) -> ModelProto:
    """A float or lowered module as ONNX that runs, with types and ``notes`` of its values.

    ``notes`` hold texts by key by the name of a value before it was lowered, and ``value_of``
    says of which one a tensor is a part. Viewers such as netron show them at the value and at
    the node that makes it. The header is the model's own metadata. Raises QdqcError as
    ``export_onnx`` does.
    """
    model = export_onnx(lowered, value_info=True)
    model.ir_version = max(model.ir_version, _IR_VERSION)
    _add(model, {k: v for k, v in lowered.header.items() if isinstance(v, str)})
    graph = model.graph
    owner = {t: name for name, tensors in export_parts(lowered).items() for t in tensors}
    for info in (*graph.input, *graph.value_info, *graph.output):
        _add(info, notes.get(value_of(owner.get(info.name, info.name)), {}))
    for node in graph.node:
        names = [value_of(owner.get(name, name)) for name in node.output]
        _add(node, next((notes[n] for n in names if n in notes), {}))
    return model


def _add(proto: Any, entries: Mapping[str, str]) -> None:
    for key, text in entries.items():
        proto.metadata_props.add(key=f"{_PREFIX}{key}", value=text)
