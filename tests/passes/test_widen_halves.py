"""Sources of f16 and bf16: their numbers stay, their borders keep their types, all modes work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, numpy_helper
from onnx.helper import (
    make_graph,
    make_model,
    make_node,
    make_opsetid,
    make_tensor_sequence_value_info,
    make_tensor_value_info,
)

from qdqc.flow.calibrate import calibrate
from qdqc.flow.deploy import deploy
from qdqc.flow.transform import transform
from qdqc.ir.types import Elem, TensorType
from qdqc.onnx_io.exporter import export_onnx
from qdqc.quant.deployment import Deployment
from qdqc.runtime.sessions.fetch import fetch
from qdqc.runtime.sessions.session import Runner, open_session

HALF, BRAIN = TensorProto.FLOAT16, TensorProto.BFLOAT16
RNG = np.random.default_rng(0)
LEAST = {"F32": 0.99999, "F16": 0.9999, "W8": 0.999, "W4": 0.97, "DYN8": 0.999, "INT8": 0.999}


def weight(*shape: int) -> Any:
    return (RNG.normal(size=shape) * 0.3).astype(np.float16)


def info(name: str, shape: Sequence[Any] | None, elem: int = HALF) -> Any:
    return make_tensor_value_info(name, elem, shape)


def model(nodes: Any, inputs: Any, outputs: Any, **constants: Any) -> ModelProto:
    tensors = [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()]
    graph = make_graph(nodes, "g", inputs, outputs, tensors)
    return make_model(graph, opset_imports=[make_opsetid("", 17)], ir_version=8)


def plain() -> ModelProto:
    nodes = [make_node("Gemm", ["x", "W", "b"], ["g"]), make_node("Tanh", ["g"], ["t"])]
    nodes.append(make_node("MatMul", ["t", "V"], ["y"]))
    constants = {"W": weight(16, 8), "b": weight(8), "V": weight(8, 32)}
    return model(nodes, [info("x", [4, 16])], [info("y", [4, 32])], **constants)


def mixed() -> ModelProto:
    nodes = [
        make_node("Cast", ["x"], ["h"], to=HALF),
        make_node("MatMul", ["h", "W"], ["m"]),
        make_node("Cast", ["m"], ["f"], to=TensorProto.FLOAT),
        make_node("Softmax", ["f"], ["s"]),
        make_node("CastLike", ["s", "W"], ["k"]),
        make_node("MatMul", ["k", "V"], ["y"]),
    ]
    inputs = [info("x", [4, 16], TensorProto.FLOAT)]
    return model(nodes, inputs, [info("y", [4, 32])], W=weight(16, 8), V=weight(8, 32))


def loop() -> ModelProto:
    inner = [
        make_node("MatMul", ["a", "W"], ["m"]),
        make_node("Tanh", ["m"], ["b"]),
        make_node("Identity", ["c"], ["d"]),
    ]
    given = [info("i", [], TensorProto.INT64), info("c", [], TensorProto.BOOL)]
    outputs = [info("d", [], TensorProto.BOOL), info("b", [4, 16])]
    body = make_graph(inner, "body", [*given, info("a", [4, 16])], outputs)
    nodes = [make_node("Loop", ["M", "", "x"], ["y"], body=body)]
    constants = {"M": np.int64(3), "W": weight(16, 16)}
    return model(nodes, [info("x", [4, 16])], [info("y", [4, 16])], **constants)


def branch() -> ModelProto:
    then = make_graph([make_node("MatMul", ["x", "W"], ["a"])], "t", [], [info("a", None)])
    other = make_graph([make_node("MatMul", ["x", "V"], ["b"])], "e", [], [info("b", None)])
    nodes = [
        make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        make_node("Greater", ["s", "zero"], ["c"]),
        make_node("If", ["c"], ["y"], then_branch=then, else_branch=other),
    ]
    constants = {"W": weight(16, 8), "V": weight(16, 8), "zero": np.float16(0)}
    return model(nodes, [info("x", [4, 16])], [info("y", [4, 8])], **constants)


def sequence() -> ModelProto:
    nodes = [
        make_node("MatMul", ["x", "W"], ["m"]),
        make_node("SplitToSequence", ["m"], ["s"], axis=1, keepdims=1),
        make_node("SequenceAt", ["s", "i"], ["a"]),
        make_node("MatMul", ["a", "V"], ["y"]),
    ]
    outputs = [info("y", [4, 3]), make_tensor_sequence_value_info("s", HALF, None)]
    constants = {"W": weight(16, 8), "V": weight(1, 3), "i": np.int64(2)}
    return model(nodes, [info("x", [4, 16])], outputs, **constants)


def read_twice() -> ModelProto:
    """An input, and a value inside, that are outputs too; a constant that is one."""
    nodes = [
        make_node("MatMul", ["x", "W"], ["m"]),
        make_node("Relu", ["m"], ["y"]),
        make_node("EyeLike", ["m"], ["e"], dtype=HALF),
        make_node("Add", ["m", "e"], ["z"]),
    ]
    outputs = [info(n, None) for n in ("m", "y", "z", "x")]
    return model(nodes, [info("x", [4, 16])], outputs, W=weight(16, 8))


NETS = (plain, mixed, loop, branch, sequence, read_twice)


def cosine(a: Any, b: Any) -> float:
    if isinstance(a, list):
        return min(cosine(x, y) for x, y in zip(a, b, strict=True))
    assert (a.dtype, a.shape) == (b.dtype, b.shape)
    a, b = (np.asarray(v, np.float64).ravel() for v in (a, b))
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def borders(proto: ModelProto) -> list[Any]:
    kinds = [
        (v.name, v.type.WhichOneof("value")) for v in (*proto.graph.input, *proto.graph.output)
    ]
    elems = [v.type.tensor_type.elem_type for v in (*proto.graph.input, *proto.graph.output)]
    return [*kinds, *elems]


@pytest.mark.parametrize("net", NETS)
def test_every_mode_gives_what_the_source_gives(net: Any) -> None:
    source = net()
    elem = np.float32 if net is mixed else np.float16
    feeds = {"x": RNG.normal(size=(4, 16)).astype(elem)}
    wanted = open_session(source).run(None, feeds)
    module = transform(source).module
    for node in module.graph.nodes():
        assert node.op.name in ("cast", "onnx") or not any(
            isinstance(v.type, TensorType) and v.type.elem is Elem.F16 for v in node.present_results
        )
    for mode, least in LEAST.items():
        table = calibrate(module, [feeds]) if mode == "INT8" else None
        made = export_onnx(deploy(module, Deployment(mode=mode), table=table).module)
        assert borders(made) == borders(source), mode
        outputs = open_session(made).run(None, feeds)
        assert min(cosine(a, b) for a, b in zip(wanted, outputs, strict=True)) > least, mode


def test_brain_floats_go_in_and_out() -> None:
    """onnxruntime has hardly a kernel for bf16: numpy is the judge."""
    inner = [make_node("MatMul", ["x", "W"], ["m"]), make_node("Tanh", ["m"], ["y"])]
    w = weight(16, 8).astype(ml_dtypes.bfloat16)
    source = model(inner, [info("x", [4, 16], BRAIN)], [info("y", [4, 8], BRAIN)], W=w)
    x = RNG.normal(size=(4, 16)).astype(ml_dtypes.bfloat16)
    wanted = np.tanh(x.astype(np.float32) @ w.astype(np.float32)).astype(ml_dtypes.bfloat16)
    module = transform(source).module
    for mode, least in LEAST.items():
        table = calibrate(module, [{"x": x}]) if mode == "INT8" else None
        done = deploy(module, Deployment(mode=mode), table=table)
        assert cosine(wanted, Runner(done.module).run({"x": x})["y"]) > min(least, 0.9999), mode
        made = export_onnx(done.module)
        assert borders(made) == borders(source)
        assert fetch(open_session(made), None, {"x": x})[0].dtype == ml_dtypes.bfloat16


def test_f16_of_an_f16_source_is_its_source_again() -> None:
    made = export_onnx(deploy(transform(plain()).module, Deployment(mode="F16")).module)
    assert [n.op_type for n in made.graph.node] == [n.op_type for n in plain().graph.node]
    assert made.ByteSize() < plain().ByteSize() + 200
    onnx.checker.check_model(made, full_check=True)


def test_products_are_integer() -> None:
    feeds = {"x": RNG.normal(size=(4, 16)).astype(np.float16)}
    module = transform(plain()).module
    for mode, op in (("DYN8", "MatMulInteger"), ("INT8", "QuantizeLinear")):
        table = calibrate(module, [feeds]) if mode == "INT8" else None
        made = export_onnx(deploy(module, Deployment(mode=mode), table=table).module)
        assert Counter(n.op_type for n in made.graph.node)[op] == 2


def test_borders_in_integers() -> None:
    """``quant_input`` and ``quant_output`` see through the casts at the border."""
    feeds = {"x": RNG.normal(size=(4, 16)).astype(np.float16)}
    module = transform(plain()).module
    wish = Deployment(quant_input=True, quant_output=True)
    done = deploy(module, wish, table=calibrate(module, [feeds]))
    assert [v.elem for v in (*done.module.graph.inputs, *done.module.graph.outputs)] == [
        Elem.U8
    ] * 2
    assert done.check(done.samples()).passed


def test_a_second_transform_changes_nothing() -> None:
    for net in NETS:
        once = transform(net()).module
        again = transform(once).module
        names = [[n.name for n in m.graph.nodes()] for m in (once, again)]
        assert names[0] == names[1]
