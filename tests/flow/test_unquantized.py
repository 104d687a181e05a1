"""A deployment of which nothing became what was asked for says so, and why."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import qdqc
from qdqc.flow.deploy import deploy
from qdqc.flow.listener import Listener
from qdqc.quant.deployment import Deployment
from qdqc.tools.model_deploy import main as model_deploy

MODES = ("INT8", "DYN8", "W8", "W4", "F16")
SAMPLES = [
    {"x": np.full((2, 32), n, np.float32), "flag": np.array(n > 1), "k": np.float32(n)}
    for n in range(1, 5)
]


def network(kind: str) -> onnx.ModelProto:
    """A product with a weight: in the branches of an If, of two activations, or none at all."""
    w = numpy_helper.from_array(
        np.random.default_rng(0).standard_normal((32, 32)).astype(np.float32), "w"
    )
    make, info = helper.make_node, helper.make_tensor_value_info
    given = [info("x", TensorProto.FLOAT, ["N", 32])]
    if kind == "branches":
        given.append(info("flag", TensorProto.BOOL, []))
        branches = {}
        for name, product in (("then_branch", "MatMul"), ("else_branch", "Sub")):
            node = make(product, ["x", "w" if product == "MatMul" else "x"], [f"{name}_y"])
            result = info(f"{name}_y", TensorProto.FLOAT, None)
            branches[name] = helper.make_graph([node], name, [], [result])
        nodes = [make("If", ["flag"], ["y"], **branches)]
    elif kind == "activations":
        nodes = [make("Transpose", ["x"], ["t"]), make("MatMul", ["x", "t"], ["y"])]
    else:
        nodes = [make("Exp", ["x"], ["y"])]
    graph = helper.make_graph(nodes, "net", given, [info("y", TensorProto.FLOAT, None)], [w])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("kind", "mode"), [("branches", "INT8"), ("branches", "F16"), *(("none", m) for m in MODES)]
)
def test_it_is_said_with_reasons(mode: str, kind: str) -> None:
    nested = f"{mode} can't take it: it is in a graph that 'if' chooses or repeats as it runs"
    reasons = {nested: 1} if kind == "branches" else {}
    module = qdqc.transform(network(kind)).module
    said: list[str] = []
    listener = Listener(warn=lambda w: said.append(getattr(w, "render", lambda: str(w))()))
    table = qdqc.calibrate(module, SAMPLES, listener=listener) if mode == "INT8" else None
    deployed = deploy(module, Deployment(mode=mode), table=table, listener=listener)
    assert deployed.unquantized is not None
    assert deployed.unquantized.reasons == reasons
    assert said[-1].startswith("warning: NOTHING WAS QUANTIZED: ")
    assert ("`bind`" in said[-1]) == (kind == "branches")


def test_the_input_that_is_named_is_the_one_to_bind() -> None:
    module = qdqc.transform(network("branches")).module
    deployed = deploy(module, Deployment(mode="F16"), listener=Listener(warn=lambda _: None))
    assert deployed.unquantized is not None
    assert deployed.unquantized.deciding == ("flag",)
    bound = qdqc.transform(network("branches"), bind={"flag": True}).module
    assert deploy(bound, Deployment(mode="F16")).unquantized is None


@pytest.mark.parametrize("mode", ["DYN8", "W8", "W4"])
def test_modes_without_ranges_reach_into_branches(mode: str) -> None:
    module = qdqc.transform(network("branches")).module
    assert deploy(module, Deployment(mode=mode)).unquantized is None


def test_recurrent_layers_are_products() -> None:
    make = helper.make_node
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.standard_normal((1, 16, k)).astype(np.float32), n)
        for n, k in (("w", 6), ("r", 4))
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [make("LSTM", ["x", "w", "r", "", "lengths"], ["y"], hidden_size=4)],
        "net",
        [info("x", TensorProto.FLOAT, [5, 2, 6]), info("lengths", TensorProto.INT32, [2])],
        [info("y", TensorProto.FLOAT, None)],
        weights,
    )
    source = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    module = qdqc.transform(source).module
    assert deploy(module, Deployment(mode="DYN8")).unquantized is None
    assert deploy(module, Deployment(mode="W8")).unquantized is None
    lengths = np.array([5, 3], np.int32)
    feeds = [{"x": rng.standard_normal((5, 2, 6)).astype(np.float32), "lengths": lengths}]
    said: list[str] = []
    listener = Listener(warn=lambda w: said.append(getattr(w, "render", lambda: str(w))()))
    table = qdqc.calibrate(module, feeds)
    static = deploy(module, Deployment(), table=table, listener=listener).unquantized
    assert static is not None
    assert static.reasons == {"ort-cpu has no integer kernel for 'lstm'": 1}
    assert "none of 1 Conv, ConvTranspose, MatMul, Gemm and recurrent layers took" in said[-1]


def test_one_call_binds_as_well() -> None:
    samples = [{"x": s["x"]} for s in SAMPLES]
    made = qdqc.quantize(network("branches"), samples, bind={"flag": True})
    assert len(made.report.audit.products("integer")) == 1


def test_a_product_of_two_activations_has_no_weight_to_store() -> None:
    module = qdqc.transform(network("activations")).module
    deployed = deploy(module, Deployment(mode="W8"), listener=Listener(warn=lambda _: None))
    assert deployed.unquantized is not None
    assert deployed.unquantized.reasons == {"W8 can't take it: the weight is not a constant": 1}
    assert deploy(module, Deployment(mode="F16")).unquantized is None
    assert deploy(module, Deployment(mode="F32")).unquantized is None


def test_the_command_says_it_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    qdqc.save(qdqc.transform(network("branches")).module, tmp_path / "net.qir")
    words = ["--mlir", str(tmp_path / "net.qir"), "--quantize", "F16"]
    report = tmp_path / "report.json"
    assert model_deploy([*words, "--report", str(report)]) == 0
    out = capsys.readouterr()
    assert out.err.startswith("warning: NOTHING WAS QUANTIZED: none of 1 ")
    assert "--bind it at model_transform (flag=VALUE)" in out.err
    entry = json.loads(report.read_text())["unquantized"]
    assert entry["deciding_inputs"] == ["flag"]
    assert sum(entry["reasons"].values()) == 1


def test_from_python_the_report_begins_with_it() -> None:
    quiet = Listener(warn=lambda _: None)
    result = qdqc.quantize(network("branches"), SAMPLES, mode="f16", listener=quiet)
    assert str(result.report).startswith("warning: NOTHING WAS QUANTIZED")
    assert "unquantized" in result.report.entries()
