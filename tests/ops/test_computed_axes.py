"""Axes of a reduction that only the run knows are an operand; constant ones an attribute."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from qdqc.diagnostics import QdqcError
from qdqc.ir.graph import Module
from qdqc.onnx_io.exporter import export_onnx
from qdqc.onnx_io.importer import import_onnx
from qdqc.pipeline.manager import run
from qdqc.text.parser import parse_module
from qdqc.text.printer import print_module

KINDS = ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare")


def made(kind: str, keepdims: int = 1) -> onnx.ModelProto:
    node = helper.make_node(f"Reduce{kind}", ["x", "axes"], ["y"], keepdims=keepdims)
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 4]),
        helper.make_tensor_value_info("axes", TensorProto.INT64, [1]),
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * (2 + keepdims))
    graph = helper.make_graph([node], "g", inputs, [output])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def outputs(model: onnx.ModelProto, axis: int) -> Any:
    x = np.random.default_rng(0).uniform(0.1, 1, (2, 3, 4)).astype(np.float32)
    session = ort.InferenceSession(model.SerializeToString())
    return session.run(None, {"x": x, "axes": np.array([axis])})[0]


def node_of(module: Module) -> Any:
    (node,) = module.graph.nodes()
    return node


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_an_operand_comes_and_goes(kind: str, keepdims: int) -> None:
    source = made(kind, keepdims)
    module = run(import_onnx(source), "@transform")
    node = node_of(module)
    assert (node.op.name.partition("_")[0], len(node.operands)) == ("reduce", 2)
    again = export_onnx(parse_module(print_module(module)))
    for axis in (0, 1, -1):
        np.testing.assert_array_equal(outputs(again, axis), outputs(source, axis))


def test_an_opset_that_knows_attributes_alone_refuses_it() -> None:
    module = import_onnx(made("Mean"))
    with pytest.raises(QdqcError, match="can't spell it"):
        export_onnx(module, opset=17)


def test_axes_that_become_constant_are_an_attribute() -> None:
    text = """module @m {opsets = {"" = 18}} {
  const %axes : i64[2] = dense[0, -1]
  graph (%x : f32[2,3,4]) -> (%y) {
    %y = reduce_mean(%x, %axes) {keepdims = false} : f32[?]
  }
}"""
    node = node_of(run(parse_module(text, verify=True), "canonicalize"))
    assert (node.op.axes, len(node.operands)) == ((0, -1), 1)
    assert node.result.tensor.shape == (3,)
