"""Inputs that are known become constants, and what hangs on them is folded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import qdqc
from qdqc.diagnostics import QdqcError
from qdqc.runtime.sessions.session import Runner
from qdqc.tools.model_transform import main as model_transform


@pytest.fixture(scope="module")
def branching() -> onnx.ModelProto:
    """x [N,16], flag bool [] -> an If with a product of its own in either branch -> y."""
    rng = np.random.default_rng(0)
    stored = {n: 0.3 * rng.standard_normal((16, 8)).astype(np.float32) for n in ("v", "w")}

    def branch(name: str, weight: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph(
            [helper.make_node("MatMul", ["x", weight], [name])], name, [], [out]
        )

    nodes = [
        helper.make_node("Not", ["flag"], ["off"]),
        helper.make_node(
            "If", ["off"], ["r"], then_branch=branch("a", "v"), else_branch=branch("b", "w")
        ),
        helper.make_node("Relu", ["r"], ["y"]),
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 16]),
        helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 8])]
    weights = [numpy_helper.from_array(a, n) for n, a in stored.items()]
    graph = helper.make_graph(nodes, "net", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("flag", [True, False])
def test_a_branch_that_a_bound_input_chooses_takes_the_place_of_its_if(
    branching: onnx.ModelProto, flag: bool
) -> None:
    module = qdqc.transform(branching, bind={"flag": flag}).module
    assert [v.name for v in module.graph.inputs] == ["x"]
    assert [n.op.name for n in module.walk()] == ["matmul"]
    x = np.random.default_rng(1).standard_normal((3, 16)).astype(np.float32)
    session = onnxruntime.InferenceSession(branching.SerializeToString())
    right = session.run(None, {"x": x, "flag": np.array(flag)})[0]
    np.testing.assert_allclose(Runner(module).run({"x": x})["y"], right, atol=1e-5)


def test_a_bound_input_that_graphs_return_is_returned() -> None:
    inner = helper.make_tensor_value_info("k", TensorProto.FLOAT, [2])
    then = helper.make_graph([], "then", [], [inner])
    other = helper.make_graph([helper.make_node("Neg", ["k"], ["m"])], "else", [], [])
    other.output.append(helper.make_tensor_value_info("m", TensorProto.FLOAT, [2]))
    nodes = [
        helper.make_node("If", ["flag"], ["r"], then_branch=then, else_branch=other),
        helper.make_node("Identity", ["k"], ["z"]),
    ]
    inputs = [
        helper.make_tensor_value_info("k", TensorProto.FLOAT, [2]),
        helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
    ]
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in ("r", "z")]
    graph = helper.make_graph(nodes, "net", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    module = qdqc.import_onnx(model, bind={"k": [1.5, -2.0]})
    assert [v.name for v in module.graph.inputs] == ["flag"]
    out = Runner(module).run({"flag": np.array(True)})
    assert out["r"].tolist() == out["z"].tolist() == [1.5, -2.0]


@pytest.mark.parametrize(
    ("bind", "reason"),
    [
        ({"flg": True}, "names 'flg', which is no input; did you mean 'flag'"),
        ({"flag": [True, False]}, r"shape \[2\]"),
        ({"flag": 2}, "2 is no bool"),
        ({"x": 1.0}, r"shape \[\]"),
        ({"flag": "yes"}, "only numbers"),
        ({"flag": True, "x": np.zeros((1, 16), np.float32)}, "no input, so"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(
    branching: onnx.ModelProto, bind: dict[str, Any], reason: str
) -> None:
    with pytest.raises(QdqcError, match=reason):
        qdqc.transform(branching, bind=bind)


def test_the_command_binds(branching: onnx.ModelProto, tmp_path: Path) -> None:
    onnx.save(branching, tmp_path / "net.onnx")
    words = ["--model_def", str(tmp_path / "net.onnx"), "-o", str(tmp_path / "net.qir"), "-q"]
    assert model_transform([*words, "--bind", "flag=true"]) == 0
    assert [v.name for v in qdqc.load(tmp_path / "net.qir").graph.inputs] == ["x"]
    again = ["--model_def", str(tmp_path / "net.qir"), "-o", str(tmp_path / "again.qir"), "-q"]
    assert model_transform([*again, "--bind", "flag=true"]) == 1
    assert model_transform([*words, "--bind", "flag"]) == 2
