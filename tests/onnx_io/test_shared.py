"""A file holds each constant once, whoever reads it, in every mode."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, numpy_helper
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

from qdqc.flow.calibrate import calibrate
from qdqc.flow.deploy import deploy
from qdqc.flow.transform import transform
from qdqc.ir.data import Data
from qdqc.ir.graph import Module
from qdqc.ir.types import Elem, TensorType
from qdqc.onnx_io.exporter import export_onnx
from qdqc.ops import Add, Opaque, Transpose
from qdqc.quant.deployment import Deployment
from qdqc.runtime.sessions.session import open_session

RNG = np.random.default_rng(0)
BYTES = {"F32": 4.0, "F16": 2.0, "W8": 1.0, "DYN8": 1.0, "INT8": 1.0}


def matrix(*shape: int) -> Any:
    return (RNG.normal(size=shape) * 0.1).astype(np.float32)


def model(nodes: Any, x: Any, opset: int = 17, **constants: Any) -> ModelProto:
    tensors = [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()]
    graph = make_graph(nodes, "g", [x], [make_tensor_value_info("y", 1, None)], tensors)
    return make_model(graph, opset_imports=[make_opsetid("", opset)], ir_version=8)


def floats(*shape: int) -> Any:
    return make_tensor_value_info("x", TensorProto.FLOAT, shape)


def unrolled() -> ModelProto:
    """One weight with biases of its own in each of eight steps."""
    nodes, h = [], "x"
    for k in range(8):
        nodes.append(make_node("Gemm", [h, "W", f"b{k}"], [f"g{k}"], transB=1))
        h = "y" if k == 7 else f"h{k}"
        nodes.append(make_node("Tanh", [f"g{k}"], [h]))
    biases = {f"b{k}": matrix(128) for k in range(8)}
    return model(nodes, floats(4, 128), W=matrix(128, 128), **biases)


def both_ways() -> ModelProto:
    """A matrix and the same matrix transposed, by a Transpose."""
    nodes = [
        make_node("MatMul", ["x", "W"], ["a"]),
        make_node("Tanh", ["a"], ["b"]),
        make_node("Transpose", ["W"], ["V"], perm=[1, 0]),
        make_node("MatMul", ["b", "V"], ["y"]),
    ]
    return model(nodes, floats(2, 4, 128), W=matrix(128, 128))


def tied() -> ModelProto:
    """An embedding that is the last weight as well."""
    nodes = [
        make_node("Gather", ["T", "x"], ["e"]),
        make_node("Tanh", ["e"], ["h"]),
        make_node("Transpose", ["T"], ["V"], perm=[1, 0]),
        make_node("MatMul", ["h", "V"], ["y"]),
    ]
    x = make_tensor_value_info("x", TensorProto.INT64, [1, 6])
    return model(nodes, x, T=matrix(500, 64) * 5)


def stored_twice() -> ModelProto:
    w = matrix(128, 128)
    nodes = [make_node("MatMul", ["x", "W"], ["a"]), make_node("MatMul", ["a", "V"], ["y"])]
    return model(nodes, floats(4, 128), W=w, V=w.copy())


@pytest.mark.parametrize("net", [unrolled, both_ways, tied, stored_twice])
def test_in_every_mode(net: Any) -> None:
    source = net()
    whole = 500 * 64 if net is tied else 128 * 128
    if net is tied:
        feeds = {"x": RNG.integers(0, 500, (1, 6))}
    else:
        shape = [d.dim_value for d in source.graph.input[0].type.tensor_type.shape.dim]
        feeds = {"x": RNG.normal(size=shape).astype(np.float32)}
    wanted = open_session(source).run(None, feeds)[0]
    module = transform(source).module
    for mode, each in BYTES.items():
        table = calibrate(module, [feeds]) if mode == "INT8" else None
        made = export_onnx(deploy(module, Deployment(mode=mode), table=table).module)
        large = [t for t in made.graph.initializer if len(t.raw_data) >= whole * each]
        # An i8 weight by columns and the same one by rows round apart, unless they share scales.
        assert len(large) == (2 if net is both_ways and each == 1 else 1), mode
        ours = open_session(made).run(None, feeds)[0]
        assert (ours * wanted).sum() / np.linalg.norm(ours) / np.linalg.norm(wanted) > 0.998, mode


def test_constants_that_are_outputs_or_small_stay() -> None:
    module = Module("m", {"": 17})
    w = np.arange(512, dtype=np.float32).reshape(16, 32)
    constants = {"a": w, "b": w, "c": w.T.copy(), "d": w.T.copy(), "k": w[:2], "l": w[:2]}
    values = {n: module.add_constant(n, Data.of(a)) for n, a in constants.items()}
    x = module.graph.add_input("x", TensorType(Elem.F32, (16, 32)))
    y = module.graph.insert(Add(), [x, values["a"]], names=["y"]).result
    z = module.graph.insert(Transpose(perm=(1, 0)), [values["c"]], names=["z"]).result
    v = module.graph.insert(Add(), [z, values["b"]], names=["v"]).result
    s = module.graph.insert(Add(), [values["k"], values["l"]], names=["s"]).result
    module.graph.set_outputs([y, v, s, values["d"]])
    made = export_onnx(module)
    assert [t.name for t in made.graph.initializer] == ["a", "d", "k", "l"]
    feeds = {"x": w}
    outputs = open_session(made).run(None, feeds)
    for ours, wanted in zip(outputs, (w + w, w + w, w[:2] * 2, w.T), strict=True):
        np.testing.assert_array_equal(ours, wanted)


def test_the_opset_of_a_domain_of_its_own() -> None:
    """Of an op that a source states none for, as one that a pass has made."""
    module = Module("m", {"": 17})
    x = module.graph.add_input("x", TensorType(Elem.F32, (4,)))
    made = module.graph.insert(
        Opaque(type="Gelu", domain="com.microsoft"), [x], [TensorType(Elem.F32, (4,))], ["y"]
    )
    module.graph.set_outputs([made.result])
    model_ = export_onnx(module)
    assert {e.domain: e.version for e in model_.opset_import}["com.microsoft"] == 1
    assert open_session(model_).run(None, {"x": np.zeros(4, np.float32)})[0].shape == (4,)
