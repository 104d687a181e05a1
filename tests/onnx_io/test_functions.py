"""Functions of the model's own: inlined with the attributes that their calls leave to them."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import AttributeProto, FunctionProto, ModelProto, NodeProto, TensorProto, helper

from qdqc.onnx_io.exporter import export_onnx
from qdqc.onnx_io.importer import import_onnx
from qdqc.runtime.sessions.session import Runner

X = np.array([[-1.0, 2.0, -3.0]], np.float32)
OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]


def leaky(name: str, kind: str = "LeakyRelu", domain: str = "") -> NodeProto:
    """A call that hands the function's own alpha on."""
    node = helper.make_node(kind, ["a"], ["b"], name, domain=domain)
    ref = AttributeProto(name="alpha", ref_attr_name="alpha", type=AttributeProto.FLOAT)
    node.attribute.append(ref)
    return node


def function(name: str, node: NodeProto, default: float | None) -> FunctionProto:
    stated = [] if default is None else [helper.make_attribute("alpha", default)]
    names = ["alpha"] if default is None else []
    return helper.make_function("f", name, ["a"], ["b"], [node], OPSETS, names, stated)


def model(nodes: list[NodeProto], functions: list[FunctionProto]) -> ModelProto:
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 3]) for n in "xy")
    c = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    graph = helper.make_graph(nodes, "g", [x, c], [y])
    return helper.make_model(graph, opset_imports=OPSETS, functions=functions, ir_version=8)


def outputs(proto: ModelProto, cond: bool = True) -> np.ndarray:
    module = import_onnx(proto)
    found = Runner(module).run({"x": X, "c": np.array(cond)})["y"]
    assert not export_onnx(module).functions
    return found


def expected(alpha: float) -> np.ndarray:
    return np.where(X < 0, X * np.float32(alpha), X)


@pytest.mark.parametrize(("given", "alpha"), [(None, 0.25), (0.5, 0.5)])
def test_a_default_holds_where_the_call_gives_nothing(given: float | None, alpha: float) -> None:
    """onnx's own inliner would take LeakyRelu's 0.01."""
    attrs = {} if given is None else {"alpha": given}
    call = helper.make_node("F", ["x"], ["y"], domain="f", **attrs)
    proto = model([call], [function("F", leaky("l"), 0.25)])
    before = proto.SerializeToString()
    np.testing.assert_array_equal(outputs(proto), expected(alpha))
    assert proto.SerializeToString() == before


def test_the_default_of_the_outer_function_reaches_the_inner_one() -> None:
    outer = function("Outer", leaky("l", "F", "f"), 0.5)
    inner = function("F", leaky("l"), 0.25)
    call = helper.make_node("Outer", ["x"], ["y"], domain="f")
    np.testing.assert_array_equal(outputs(model([call], [outer, inner])), expected(0.5))


def test_a_default_inside_a_branch() -> None:
    made = [helper.make_tensor_value_info("t", TensorProto.FLOAT, [1, 3])]
    calls = [
        helper.make_node("F", ["x"], ["t"], domain="f", **attrs) for attrs in ({}, {"alpha": 0.5})
    ]
    then, other = (helper.make_graph([call], "b", [], made) for call in calls)
    node = helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)
    proto = model([node], [function("F", leaky("l"), 0.25)])
    np.testing.assert_array_equal(outputs(proto, True), expected(0.25))
    np.testing.assert_array_equal(outputs(proto, False), expected(0.5))
