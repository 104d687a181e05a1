"""Arrays of types that onnxruntime's Python interface does not take go in and come out."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from qdqc.flow.transform import transform
from qdqc.runtime.sessions.fetch import fetch
from qdqc.runtime.sessions.session import open_session

TYPES = {
    TensorProto.BFLOAT16: ml_dtypes.bfloat16,
    TensorProto.FLOAT8E4M3FN: ml_dtypes.float8_e4m3fn,
    TensorProto.FLOAT8E4M3FNUZ: ml_dtypes.float8_e4m3fnuz,
    TensorProto.FLOAT8E5M2: ml_dtypes.float8_e5m2,
    TensorProto.FLOAT8E5M2FNUZ: ml_dtypes.float8_e5m2fnuz,
}
X = np.array([[1, -2.5, 3.25], [0, 300, 0.07]], np.float32)


def cast(start: int, end: int) -> ModelProto:
    value = helper.make_tensor_value_info
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=end)]
    graph = helper.make_graph(nodes, "g", [value("x", start, [2, 3])], [value("y", end, [2, 3])])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize("elem", TYPES)
def test_casts_are_those_of_numpy(elem: int) -> None:
    x = np.clip(X, -200, 200)
    (narrow,) = fetch(open_session(cast(TensorProto.FLOAT, elem)), None, {"x": x})
    assert narrow.dtype == TYPES[elem]
    np.testing.assert_array_equal(narrow, x.astype(TYPES[elem]))
    (wide,) = fetch(open_session(cast(elem, TensorProto.FLOAT)), ["y"], {"x": narrow})
    np.testing.assert_array_equal(wide, narrow.astype(np.float32))


@pytest.mark.parametrize("elem", TYPES)
def test_models_of_these_types_are_held_against_their_source(elem: int) -> None:
    for proto in (cast(TensorProto.FLOAT, elem), cast(elem, TensorProto.FLOAT)):
        check = transform(proto).check()
        assert check.against is not None
        assert check.comparison.passed
