"""Short spellings of ONNX models, and onnxruntime as the judge of them."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import ModelProto, TensorProto, numpy_helper
from onnx.helper import make_graph, make_model, make_opsetid, make_tensor_value_info

from qdqc.ir.graph import Module
from qdqc.onnx_io.exporter import export_onnx
from qdqc.onnx_io.importer import import_onnx

F = TensorProto.FLOAT


def info(name: str, shape: Any, elem: int = F) -> Any:
    return make_tensor_value_info(name, elem, shape)


def model(
    nodes: Any, inputs: Any, outputs: Any, initializers: Any = (), opset: int = 17, **more: Any
) -> ModelProto:
    graph = make_graph(nodes, "g", inputs, outputs, list(initializers), **more)
    return make_model(graph, opset_imports=[make_opsetid("", opset)], ir_version=8)


def tensor(name: str, array: Any) -> TensorProto:
    return numpy_helper.from_array(np.asarray(array), name)


def opset_of(proto: ModelProto) -> int:
    return next(entry.version for entry in proto.opset_import if not entry.domain)


def run(proto: ModelProto | str | os.PathLike[str], feed: dict[str, Any]) -> list[Any]:
    """The outputs of a model, in memory or in a file, without onnxruntime's optimisations."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    source = proto.SerializeToString() if isinstance(proto, ModelProto) else str(proto)
    session = ort.InferenceSession(source, options, ["CPUExecutionProvider"], enable_fallback=False)
    return session.run(None, feed)


def same(proto: ModelProto, feed: dict[str, Any]) -> Module:
    """Import and export keep the outputs; gives the module."""
    module = import_onnx(proto)
    for a, b in zip(run(proto, feed), run(export_onnx(module), feed), strict=True):
        np.testing.assert_array_equal(a, b)
    return module


def ops(module: Module) -> list[str]:
    """The names of a module's ops in order, those of nested graphs among them."""
    return [node.op.name for node in module.walk()]
