"""What the file, onnx's shape inference and onnxruntime say about the types of values."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from typing import TypeAlias

import onnx.shape_inference
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto

from compiler.ir.types import Elem, TensorType, Type
from compiler.onnx_io.schemas import elem_spelling
from compiler.onnx_io.shapes import ShapeRequest, declared_types, read_type, write_type
from compiler.onnx_io.structure import inner_path, subgraphs
from compiler.ops.onnx_table import elem_of_code

__all__ = ["Declared", "ask_onnxruntime", "infer_declared", "stripped"]

_KEPT_BYTES = 1024
_MOST_BYTES = 1 << 28


def stripped(model: ModelProto, request: ShapeRequest) -> ModelProto:
    """A copy without large weights: they become inputs, so that only their types remain."""
    out = ModelProto(ir_version=max(model.ir_version, 4), opset_import=model.opset_import)
    source, graph = model.graph, out.graph
    graph.name = source.name or "main"
    inputs = {i.name for i in source.input}
    for info in source.input:
        _add_info(graph.input.add(), info, request, info.name)
    for field in ("output", "value_info"):
        for info in getattr(source, field):
            _add_info(getattr(graph, field).add(), info, request, None)
    for tensor in source.initializer:
        if tensor.ByteSize() <= _KEPT_BYTES and tensor.data_location != TensorProto.EXTERNAL:
            graph.initializer.append(tensor)
        elif tensor.name not in inputs:
            _add_weight(graph, tensor.name, tensor)
    for node in source.node:
        big = node.op_type == "Constant" and node.ByteSize() > _KEPT_BYTES
        tensor = next((a.t for a in node.attribute if a.HasField("t")), None)
        if big and tensor is not None and len(node.output) == 1:
            _add_weight(graph, node.output[0], tensor)
        else:
            graph.node.append(node)
    return out


def _add_info(
    target: ValueInfoProto, info: ValueInfoProto, request: ShapeRequest, name: str | None
) -> None:
    target.name = info.name
    found = read_type(info.type)
    if found is None:
        target.type.CopyFrom(info.type)
    else:
        target.type.CopyFrom(write_type(request.apply(name, found)))


def _add_weight(graph: GraphProto, name: str, tensor: TensorProto) -> None:
    info = graph.input.add(name=name)
    elem = elem_of_code(tensor.data_type)
    if elem is not None:
        info.type.CopyFrom(write_type(TensorType(elem, tuple(tensor.dims))))


Declared: TypeAlias = dict[tuple[str, str], Type]
"""Types by (path of the graph, name of the value); the path of the main graph is empty."""


def infer_declared(light: ModelProto) -> Declared:
    """Types of values after onnx's shape inference, those in nested graphs included.

    ``light`` comes from ``stripped``. Where inference fails, the types that the file states.
    """
    if light.ByteSize() < _MOST_BYTES:
        # A native library: whatever it throws, we only know less.
        with contextlib.suppress(Exception):
            light = onnx.shape_inference.infer_shapes(light, data_prop=True)
    found: Declared = {}
    _collect(light.graph, "", found)
    return found


def _collect(graph: GraphProto, path: str, found: Declared) -> None:
    for field in ("input", "output", "value_info"):
        for name, type in declared_types(getattr(graph, field)).items():
            found.setdefault((path, name), type)
    for node in graph.node:
        for attribute, inner in subgraphs(node):
            _collect(inner, inner_path(path, node, attribute), found)


def ask_onnxruntime(light: ModelProto, names: Collection[str]) -> dict[str, Type]:
    """Types of values that onnx's inference does not know, as onnxruntime loads the model.

    onnxruntime knows its contrib ops. Empty where it can't load the model.
    """
    import onnxruntime as ort

    asked = ModelProto()
    asked.CopyFrom(light)
    outputs = {o.name for o in asked.graph.output}
    for name in names:
        if name not in outputs:
            asked.graph.output.add(name=name)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(
            asked.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        described = session.get_outputs()
    except Exception:  # a native library: whatever it throws, we only know less
        return {}
    found: dict[str, Type] = {}
    for output in described:
        elem = _RUNTIME_ELEMS.get(output.type)
        if elem is not None:
            dims = tuple(d if isinstance(d, int) and d >= 0 else None for d in output.shape)
            found[output.name] = TensorType(elem, dims)
    return found


_RUNTIME_ELEMS = {elem_spelling(elem): elem for elem in Elem}
