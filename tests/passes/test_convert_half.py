"""Mode F16 of ops that ONNX, or onnxruntime, has in part or not at all in half precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

from qdqc.flow.deploy import deploy
from qdqc.flow.transform import transform
from qdqc.ir.types import Elem
from qdqc.onnx_io.exporter import export_onnx
from qdqc.quant.deployment import Deployment
from qdqc.runtime.sessions.session import open_session

F32 = np.float32
RNG = np.random.default_rng(0)


def model(op: str, operands: str, constants: Any, outputs: Any = ("y",), **attributes: Any) -> Any:
    """abs -> op over x [1, 2, 4, 4], of which f16 has all numbers."""
    opset = attributes.pop("opset", 20)
    nodes = [
        make_node("Abs", ["x"], ["a"]),
        make_node(op, operands.split(","), outputs, **attributes),
    ]
    tensors = [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()]
    kinds = {"i": 7, "idx": 7}
    ends = [make_tensor_value_info(o, kinds.get(o, 1), None) for o in outputs]
    graph = make_graph(nodes, "g", [make_tensor_value_info("x", 1, [1, 2, 4, 4])], ends, tensors)
    return make_model(graph, opset_imports=[make_opsetid("", opset)], ir_version=9)


ROIS = {"r": np.array([[0, 0, 3, 3]], F32), "b": np.array([0])}
ZEROS = {"at": np.zeros((1, 2, 4, 4), np.int64), "u": np.ones((1, 2, 4, 4), F32)}
NORM = {"s": np.ones(2, F32), "b": np.zeros(2, F32), "m": np.zeros(2, F32), "v": np.ones(2, F32)}
CASES: dict[str, tuple[ModelProto, int]] = {
    "scales": (model("Resize", "a,,s", {"s": np.array([1, 1, 2, 2], F32)}), 1),
    "region": (
        model(
            "Resize",
            "a,r,,s",
            {"r": np.array([0, 0, 0, 0, 1, 1, 1, 1], F32), "s": np.array([1, 2, 8, 8])},
            coordinate_transformation_mode="tf_crop_and_resize",
            mode="linear",
        ),
        1,
    ),
    "rois": (model("RoiAlign", "a,r,b", ROIS, output_height=2, output_width=2), 1),
    "scatter": (model("ScatterElements", "a,at,u", ZEROS, axis=3), 1),
    "sum by scatter": (model("ScatterElements", "a,at,u", ZEROS, axis=3, reduction="add"), 0),
    "mean and variance": (model("MeanVarianceNormalization", "a", {}), 0),
    "batch norm": (model("BatchNormalization", "a,s,b,m,v", NORM), 1),
    "topk": (model("TopK", "a,k", {"k": np.array([2])}, ("y", "i")), 1),
    "one hot": (
        model("OneHot", "h,d,v", {"h": np.array([1, 3]), "d": 4, "v": np.array([0, 2], F32)}),
        1,
    ),
    "eye": (model("EyeLike", "w", {"w": np.zeros((3, 3), F32)}), 1),
    "range": (model("Range", "z,o,o", {"z": F32(0), "o": F32(1)}), 0),
    "bounds": (model("Clip", "a,l,l", {"l": F32(0.5)}), 1),
    "far bounds": (model("Clip", "a,l,h", {"l": F32(-1e9), "h": F32(1e9)}), 1),
}


def has_half(proto: ModelProto, op: str) -> bool:
    """Whether the node of an op has an input that a cast to f16 or an f16 constant makes."""
    halves = {
        n.output[0] for n in proto.graph.node if n.op_type == "Cast" and n.attribute[0].i == 10
    }
    halves |= {t.name for t in proto.graph.initializer if t.data_type == 10}
    halves |= {
        v.name
        for v in onnx.shape_inference.infer_shapes(proto).graph.value_info
        if v.type.tensor_type.elem_type == 10
    }
    return any(not halves.isdisjoint(n.input) for n in proto.graph.node if n.op_type == op)


@pytest.mark.parametrize("name", CASES)
def test_ops_that_are_half_in_part(name: str) -> None:
    source, half = CASES[name]
    feeds = {"x": RNG.normal(size=(1, 2, 4, 4)).astype(np.float16).astype(F32)}
    wanted = open_session(source).run(None, feeds)
    made = export_onnx(deploy(transform(source).module, Deployment(mode="F16")).module)
    for ours, theirs in zip(open_session(made).run(None, feeds), wanted, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-3)
    assert has_half(made, source.graph.node[1].op_type) == bool(half)


PRODUCTS = ("matmul", "gemm", "conv", "conv_transpose")
BIASED = {
    "matmul": [make_node("MatMul", ["x", "m"], ["p"]), make_node("Add", ["p", "b"], ["y"])],
    "clamped matmul": [
        make_node("MatMul", ["x", "m"], ["p"]),
        make_node("Add", ["p", "b"], ["q"]),
        make_node("Relu", ["q"], ["y"]),
    ],
    "gemm": [
        make_node("Flatten", ["x"], ["f"], axis=3),
        make_node("Gemm", ["f", "m", "b"], ["y"]),
    ],
    "conv": [make_node("Conv", ["x", "k", "b"], ["y"])],
    "conv transpose": [make_node("ConvTranspose", ["x", "t", "b"], ["y"])],
}


@pytest.mark.parametrize("name", BIASED)
def test_products_become_half_with_their_bias(name: str) -> None:
    shapes = {"m": (4, 3), "k": (3, 2, 1, 1), "t": (2, 3, 1, 1), "b": (3,)}
    nodes = BIASED[name]
    read = {n for node in nodes for n in node.input}
    held = [
        numpy_helper.from_array(RNG.normal(size=s).astype(F32), n)
        for n, s in shapes.items()
        if n in read
    ]
    ends = [make_tensor_value_info("y", 1, None)]
    graph = make_graph(nodes, "g", [make_tensor_value_info("x", 1, [1, 2, 4, 4])], ends, held)
    source = make_model(graph, opset_imports=[make_opsetid("", 17)], ir_version=9)
    deployed = deploy(transform(source).module, Deployment(mode="F16"))
    assert deployed.unquantized is None
    (product,) = (n for n in deployed.module.graph.nodes() if n.op.name in PRODUCTS)
    assert {v.elem for v in (*product.present_operands, product.result)} == {Elem.F16}
    assert deployed.check(deployed.samples()).passed


def test_boxes_are_selected_in_float32() -> None:
    nodes = [
        make_node("Sigmoid", ["x"], ["boxes"]),
        make_node("Sigmoid", ["s"], ["scores"]),
        make_node("NonMaxSuppression", ["boxes", "scores", "k", "iou", "t"], ["y"]),
    ]
    constants = {"k": np.array([9]), "iou": np.array([0.5], F32), "t": np.array([0.4], F32)}
    tensors = [numpy_helper.from_array(a, n) for n, a in constants.items()]
    inputs = [make_tensor_value_info(n, 1, s) for n, s in (("x", [1, 30, 4]), ("s", [1, 2, 30]))]
    graph = make_graph(nodes, "g", inputs, [make_tensor_value_info("y", 7, None)], tensors)
    source = make_model(graph, opset_imports=[make_opsetid("", 17)], ir_version=8)
    made = export_onnx(deploy(transform(source).module, Deployment(mode="F16")).module)
    feeds = {
        v.name: RNG.integers(-40, 40, [d.dim_value for d in v.type.tensor_type.shape.dim]) / 8
        for v in inputs
    }
    feeds = {n: a.astype(F32) for n, a in feeds.items()}
    # Steps of an eighth: no two boxes or scores fall together in f16.
    ours, wanted = (set(map(tuple, open_session(m).run(None, feeds)[0])) for m in (made, source))
    assert len(ours & wanted) > 0.8 * len(wanted)
    assert [n.op_type for n in made.graph.node].count("Sigmoid") == 2
    assert not has_half(made, "NonMaxSuppression")


def test_what_is_made_of_numbers_beyond_f16_stays() -> None:
    """A mask that a few numbers generate is as large as one that is stored."""
    big = numpy_helper.from_array(np.array([-1e9], F32))
    nodes = [
        make_node("ConstantOfShape", ["s"], ["c"], value=big),
        make_node("Trilu", ["c", "k"], ["m"]),
        make_node("Add", ["x", "m"], ["y"]),
    ]
    tensors = [
        numpy_helper.from_array(np.asarray(a), n) for n, a in {"s": [200, 200], "k": 1}.items()
    ]
    ends = [make_tensor_value_info(n, 1, [200, 200]) for n in "xy"]
    graph = make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    source = make_model(graph, opset_imports=[make_opsetid("", 17)], ir_version=8)
    made = export_onnx(deploy(transform(source).module, Deployment(mode="F16")).module)
    ours = open_session(made).run(None, {"x": np.zeros((200, 200), F32)})[0]
    assert ours.min() == F32(-1e9)
