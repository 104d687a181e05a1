"""Recurrent layers over nothing: onnxruntime would end the process, so they are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from qdqc.diagnostics import QdqcError
from qdqc.flow.transform import transform
from qdqc.onnx_io.importer import import_onnx
from qdqc.runtime.sessions.session import Runner

GATES = {"GRU": 3, "LSTM": 4, "RNN": 1}
ENDED_OVER = pytest.mark.parametrize(
    ("op", "shape"), [("GRU", (0, 2, 5)), ("GRU", (3, 0, 5)), ("LSTM", (3, 0, 5))]
)
LEFT = pytest.mark.parametrize(
    ("op", "shape"), [("LSTM", (0, 2, 5)), ("RNN", (0, 2, 5)), ("RNN", (3, 0, 5))]
)


def recurrent(op: str, shape: list[Any], layout: int = 0) -> ModelProto:
    """The layer over a concatenation of an input with itself."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(size=(1, GATES[op] * 4, 5)).astype(np.float32),
        "r": rng.normal(size=(1, GATES[op] * 4, 4)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Concat", ["x", "x"], ["xx"], axis=0),
        helper.make_node(op, ["xx", "w", "r"], ["", "h"], hidden_size=4, layout=layout),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, shape)],
        [value("h", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@ENDED_OVER
def test_no_steps_or_rows_are_refused_when_a_model_comes_in(
    op: str, shape: tuple[int, ...]
) -> None:
    with pytest.raises(QdqcError, match="'xx' is empty"):
        transform(recurrent(op, list(shape)))


@ENDED_OVER
def test_inputs_that_leave_none_are_refused(op: str, shape: tuple[int, ...]) -> None:
    runner = Runner(import_onnx(recurrent(op, ["t", "n", 5])))
    with pytest.raises(QdqcError, match="'xx' is empty"):
        runner.run({"x": np.zeros(shape, np.float32)})
    assert runner.run({"x": np.zeros((1, 2, 5), np.float32)})["h"].shape == (1, 2, 4)


@LEFT
def test_what_runs_over_nothing_is_left_to_run(op: str, shape: tuple[int, ...]) -> None:
    values = Runner(import_onnx(recurrent(op, ["t", "n", 5]))).run(
        {"x": np.zeros(shape, np.float32)}
    )
    assert values["h"].shape == (1, shape[1], 4)
