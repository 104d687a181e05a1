"""Old opsets become native ops where they mean the same, and opaque nodes turn native."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto
from onnx.helper import make_node
from protos import F, info, model, ops, same, tensor

from qdqc.ir.data import Data
from qdqc.onnx_io.importer import import_onnx
from qdqc.ops.onnx_table import reveal

X = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)


OLD = [
    (9, "Clip", {"min": -1.0, "max": 1.0}, "clip"),
    (9, "Slice", {"axes": [2], "starts": [1], "ends": [5]}, "slice"),
    (9, "Pad", {"pads": [0, 0, 1, 1, 0, 0, 1, 1], "value": 2.0}, "pad"),
    (11, "Squeeze", {"axes": [1]}, "squeeze"),
    (11, "Unsqueeze", {"axes": [0]}, "unsqueeze"),
    (11, "ReduceSum", {"axes": [1], "keepdims": 0}, "reduce_sum"),
    (11, "ReduceMean", {"axes": [-1]}, "reduce_mean"),
    (11, "Softmax", {"axis": 3}, "softmax"),
    (11, "Softmax", {"axis": 1}, "onnx"),
    (11, "Softmax", {}, "onnx"),
    (11, "Dropout", {"ratio": 0.5}, "identity"),
    (7, "Upsample", {"scales": [1.0, 1.0, 2.0, 2.0]}, "resize"),
    (11, "Split", {"axis": 2, "split": [3, 5]}, "split"),
    (13, "Split", {"axis": 2}, "split"),
    (9, "TopK", {"k": 2, "axis": 3}, "topk"),
]


@pytest.mark.parametrize(("opset", "type", "attrs", "expected"), OLD)
def test_old_spellings(opset, type, attrs, expected):
    x = X[:, :1] if type == "Squeeze" else X
    names = ["y", "z"] if type in ("Split", "TopK") else ["y"]
    outputs = [info(n, None, 7 if (type, n) == ("TopK", "z") else F) for n in names]
    node = make_node(type, ["x"], names, **attrs)
    module = same(model([node], [info("x", x.shape)], outputs, opset=opset), {"x": x})
    assert ops(module) == [expected]


def test_batch_normalization_per_pixel_stays_opaque():
    held = [tensor(n, np.ones(3, np.float32)) for n in "sbmv"]
    node = make_node("BatchNormalization", ["x", *"sbmv"], ["y"], spatial=0)
    proto = model([node], [info("x", [2, 3])], [info("y", None)], held, opset=8)
    assert ops(import_onnx(proto)) == ["onnx"]


def test_reveal_once_inputs_are_constant():
    node = make_node("Unsqueeze", ["x", "axes"], ["y"])
    inputs = [info("x", [2, 3]), info("axes", [1], TensorProto.INT64)]
    module = import_onnx(model([node], inputs, [info("y", None)]))
    (opaque,) = module.graph.nodes()
    assert opaque.op.name == "onnx"
    assert reveal(opaque) is None
    opaque.set_operand(1, module.add_constant("k", Data.of(np.array([1]))))
    found = reveal(opaque)
    assert found is not None
    op, operands = found
    assert (op.name, op.axes) == ("unsqueeze", (1,))
    assert [v.name for v in operands] == ["x"]
