"""Folding computes what is known, and stores nothing that a few numbers generate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

from qdqc.flow.deploy import deploy
from qdqc.flow.transform import transform
from qdqc.onnx_io.exporter import export_onnx
from qdqc.quant.deployment import Deployment
from qdqc.runtime.sessions.session import open_session

RNG = np.random.default_rng(0)
F32 = np.float32


def model(nodes: Any, shape: Any, **constants: Any) -> ModelProto:
    tensors = [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()]
    x = make_tensor_value_info("x", 1, shape)
    graph = make_graph(nodes, "g", [x], [make_tensor_value_info("y", 1, None)], tensors)
    return make_model(graph, opset_imports=[make_opsetid("", 17)], ir_version=8)


def one(value: float) -> Any:
    return numpy_helper.from_array(np.array([value], F32))


def relative_positions() -> ModelProto:
    nodes = [
        make_node("Unsqueeze", ["r", "first"], ["a"]),
        make_node("Unsqueeze", ["r", "second"], ["b"]),
        make_node("Sub", ["a", "b"], ["d"]),
        make_node("Add", ["d", "most"], ["i"]),
        make_node("Gather", ["table", "i"], ["p"]),
        make_node("Add", ["x", "p"], ["y"]),
    ]
    table = RNG.normal(size=(127, 16)).astype(F32)
    axes = {"first": np.array([0]), "second": np.array([1]), "most": np.int64(63)}
    return model(nodes, [64, 64, 16], r=np.arange(64), table=table, **axes)


def mask() -> ModelProto:
    nodes = [
        make_node("ConstantOfShape", ["s"], ["c"], value=one(-1e9)),
        make_node("Trilu", ["c", "k"], ["m"]),
        make_node("Add", ["x", "m"], ["a"]),
        make_node("Softmax", ["a"], ["y"]),
    ]
    return model(nodes, [200, 200], s=np.array([200, 200]), k=np.int64(1))


def spread() -> ModelProto:
    nodes = [
        make_node("Expand", ["row", "s"], ["e"]),
        make_node("Add", ["x", "e"], ["a"]),
        make_node("Tile", ["row", "t"], ["r"]),
        make_node("Mul", ["a", "r"], ["b"]),
        make_node("OneHot", ["i", "depth", "v"], ["h"]),
        make_node("MatMul", ["b", "h"], ["y"]),
    ]
    constants = {"s": np.array([200, 200]), "t": np.array([200, 1]), "i": np.arange(200) % 90}
    row = RNG.normal(size=(1, 200)).astype(F32)
    return model(
        nodes, [200, 200], row=row, depth=np.int64(90), v=np.array([0, 1], F32), **constants
    )


def filter_bank() -> ModelProto:
    """A weight of few numbers among zeros, as the filters of a spectrum are."""
    nodes = [
        make_node("ConstantOfShape", ["s"], ["z"], value=one(0)),
        make_node("ScatterElements", ["z", "at", "v"], ["f"], axis=0),
        make_node("Reshape", ["f", "to"], ["w"]),
        make_node("MatMul", ["x", "w"], ["y"]),
    ]
    at, v = np.arange(0, 40000, 100), RNG.normal(size=400).astype(F32)
    return model(nodes, [4, 200], s=np.array([40000]), at=at, v=v, to=np.array([200, 200]))


@pytest.mark.parametrize("net", [relative_positions, mask, spread, filter_bank])
def test_what_is_generated_stays_generated(net: Any) -> None:
    source = net()
    shape = [d.dim_value for d in source.graph.input[0].type.tensor_type.shape.dim]
    feeds = {"x": RNG.normal(size=shape).astype(F32)}
    wanted = open_session(source).run(None, feeds)[0]
    module = transform(source).module
    for mode in ("F32", "F16", "W8", "DYN8"):
        made = export_onnx(deploy(module, Deployment(mode=mode)).module)
        assert made.ByteSize() < source.ByteSize() + (1 << 12) + 2048, mode
        ours = open_session(made).run(None, feeds)[0]
        np.testing.assert_allclose(ours, wanted, atol=2e-2 * np.abs(wanted).max(), err_msg=mode)


def test_what_grows_and_shrinks_again_is_folded() -> None:
    nodes = [
        make_node("Expand", ["row", "s"], ["e"]),
        make_node("ReduceSum", ["e", "axis"], ["t"], keepdims=0),
        make_node("Add", ["x", "t"], ["y"]),
    ]
    row = RNG.normal(size=(1, 300)).astype(F32)
    source = model(nodes, [300], row=row, s=np.array([300, 300]), axis=np.array([0]))
    assert [n.op.name for n in transform(source).module.graph.nodes()] == ["add"]


def test_a_weight_may_be_a_second_form_of_a_constant() -> None:
    """Integers want a constant; the file writes the transposed one as a Transpose."""
    nodes = [
        make_node("Transpose", ["w"], ["v"], perm=[1, 0]),
        make_node("Add", ["x", "w"], ["a"]),
        make_node("MatMul", ["a", "v"], ["y"]),
    ]
    source = model(nodes, [100, 200], w=RNG.normal(size=(100, 200)).astype(F32))
    module = transform(source).module
    assert [n.op.name for n in module.graph.nodes()] == ["add", "matmul"]
    assert export_onnx(module).ByteSize() < source.ByteSize() + 500
