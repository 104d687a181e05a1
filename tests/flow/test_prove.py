"""The proof of a deployment, and the audit of models that other tools laid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import qdqc
from qdqc.calibration.tables import calibrate
from qdqc.flow.deploy import Deployed, deploy
from qdqc.flow.prove import Proof, asked, prove
from qdqc.ir.graph import Module
from qdqc.onnx_io.importer import import_onnx
from qdqc.onnx_io.saver import save_onnx
from qdqc.pipeline.manager import run
from qdqc.quant.targets.target import target_named
from qdqc.runtime.sessions.session import Runner

ORT = target_named("ort-cpu")


@pytest.fixture(scope="module")
def tiny(tiny_onnx: Path) -> Module:
    return run(import_onnx(tiny_onnx), "@transform")


@pytest.fixture(scope="module")
def sample(tiny_data: Path) -> dict[str, Any]:
    return {"x": np.load(tiny_data)["x"][:1]}


@pytest.fixture(scope="module")
def deployed(tiny: Module, sample: dict[str, Any]) -> Deployed:
    (table,) = calibrate(tiny, [sample], lambda names: Runner(tiny, names).run, ["max"]).values()
    return deploy(tiny, table=table)


def proven(deployed: Deployed, sample: dict[str, Any], path: Path) -> Proof:
    save_onnx(deployed.module, path)
    return deployed.prove(path, sample)


def test_the_proof_of_a_deployment(
    tiny: Module, deployed: Deployed, sample: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "m.onnx"
    found = proven(deployed, sample, path)
    assert [r.name for r in found.audit.products("integer")] == ["r1", "c2", "c3", "y"]
    assert found.audit.findings == ()
    assert found.bytes["deployed"] == path.stat().st_size
    floats = sum(c.data.nbytes for c in tiny.constants.values())
    assert found.bytes["float"] > floats
    assert list(found.bad_fusions) == []
    entries = found.entries()
    json.dumps(entries, allow_nan=False)
    assert set(entries) == {"audit", "bytes", "bad_fusions"}
    assert entries["audit"]["integer"] == 4


def test_a_file_that_was_changed_behind_its_module_is_found_out(
    deployed: Deployed, sample: dict[str, Any], tmp_path: Path
) -> None:
    """The proof is of the file: a cast that is gone there is a finding, whatever the IR says."""
    path = tmp_path / "m.onnx"
    save_onnx(deployed.module, path)
    proto = onnx.load(path)
    casts = [n for n in proto.graph.node if n.op_type == "QuantizeLinear"]
    broken = casts[1]
    view = next(n for n in proto.graph.node if broken.output[0] in n.input[:1])
    for node in proto.graph.node:
        for index, name in enumerate(node.input):
            if name == view.output[0]:
                node.input[index] = broken.input[0]
    proto.graph.node.remove(view)
    proto.graph.node.remove(broken)
    onnx.save(proto, path)
    found = deployed.prove(path, sample)
    assert found.audit.findings
    assert all("onnxruntime left it float" in r.reason for r in found.audit.findings)
    assert len(found.audit.products("integer")) < 4


def test_types_ask_for_integers(tiny: Module, deployed: Deployed) -> None:
    wanted = asked(deployed.typed.graph, ORT)
    assert {n for n, d in wanted.items() if d.integer} == {"r1", "c2", "r2", "c3", "p", "f", "y"}
    assert not [d.reason for d in wanted.values() if d.reason]
    floats = asked(tiny.graph, ORT)
    assert {d.reason for d in floats.values()} == {"it reads and gives floats"}


def foreign(path: Path, *, wrong_axis: bool) -> Path:
    """A QDQ Conv by hand. ``wrong_axis`` has its scales along the input channels."""
    held: dict[str, Any] = {
        "xs": np.float32(0.02),
        "xz": np.uint8(128),
        "w": np.arange(-8, 8, dtype=np.int8).reshape(4, 4, 1, 1),
        "ws": np.full(4, 0.01, np.float32),
        "wz": np.zeros(4, np.int8),
        "ys": np.float32(0.05),
        "yz": np.uint8(128),
    }
    make = helper.make_node
    axis = int(wrong_axis)
    nodes = [
        make("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        make("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        make("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=axis),
        make("Conv", ["xd", "wd"], ["c"]),
        make("QuantizeLinear", ["c", "ys", "yz"], ["yq"]),
        make("DequantizeLinear", ["yq", "ys", "yz"], ["y"]),
    ]
    shapes = ("x", [1, 4, 3, 3]), ("y", [1, 4, 3, 3])
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes]
    constants = [numpy_helper.from_array(np.asarray(a), n) for n, a in held.items()]
    graph = helper.make_graph(nodes, "foreign", ends[:1], ends[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def test_a_model_of_another_tool_is_audited(tmp_path: Path) -> None:
    good = prove(foreign(tmp_path / "good.onnx", wrong_axis=False))
    assert [(r.op, r.runs) for r in good.rows if r.is_product] == [("conv", "integer")]
    assert good.findings == ()
    bad = qdqc.prove(foreign(tmp_path / "bad.onnx", wrong_axis=True))
    (row,) = (r for r in bad.rows if r.is_product)
    assert row.runs == "integer", "onnxruntime asks nobody for the axis"
    assert row.rule == "weight-axis"
    assert row.reason == "breaks weight-axis: the weight's scales run along axis 1, not 0"
    assert bad.findings == (row,)


@pytest.mark.parametrize("activation", ["", "Relu", "Sigmoid"])
def test_a_product_of_tokens_with_bias_and_activation(activation: str) -> None:
    """A product, its bias and its clamp are three nodes of the file and one of the module."""
    rng = np.random.default_rng(2)
    make = helper.make_node
    held = {n: rng.standard_normal((8, 8)).astype(np.float32) for n in ("w", "v")}
    held |= {n: rng.standard_normal(8).astype(np.float32) for n in ("b", "c")}
    nodes = [make("MatMul", ["x", "w"], ["p"]), make("Add", ["p", "b"], ["s"])]
    nodes += [make(activation, ["s"], ["a"])] if activation else []
    nodes += [make("MatMul", ["a" if activation else "s", "v"], ["q"])]
    nodes += [make("Add", ["q", "c"], ["y"])]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 3, 8]) for n in "xy"]
    constants = [numpy_helper.from_array(a, n) for n, a in held.items()]
    graph = helper.make_graph(nodes, "m", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data = [{"x": rng.standard_normal((1, 3, 8), np.float32)} for _ in range(4)]
    rows = qdqc.quantize(model, data).report.entries()["audit"]["ops"]
    assert [r["runs"] for r in rows if r["op"] == "matmul"] == ["integer", "integer"]


def test_a_cast_that_onnxruntime_moves_takes_no_product_out_of_sight() -> None:
    """It moves casts up through what moves values; the product before them has an integer kernel
    under a name of its own."""
    rng = np.random.default_rng(4)
    held = {
        "w": rng.standard_normal((8, 8)).astype(np.float32),
        "image": np.array([-1, 8, 2, 2]),
        "k": rng.standard_normal((4, 8, 1, 1)).astype(np.float32),
    }
    make = helper.make_node
    nodes = [
        make("MatMul", ["x", "w"], ["p"]),
        make("Transpose", ["p"], ["t"], perm=[0, 2, 1]),
        make("Reshape", ["t", "image"], ["i"]),
        make("Conv", ["i", "k"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 2, 2])
    constants = [numpy_helper.from_array(a, n) for n, a in held.items()]
    graph = helper.make_graph(nodes, "m", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data = [{"x": rng.standard_normal((1, 4, 8), np.float32)} for _ in range(4)]
    rows = {r["name"]: r for r in qdqc.quantize(model, data).report.entries()["audit"]["ops"]}
    assert rows["p"]["runs"] == rows["y"]["runs"] == "integer"


def rows_of(*nodes: Any, channels: int = 4) -> dict[str, tuple[str, str]]:
    """How the nodes of a small image network run, by the names of values."""
    rng = np.random.default_rng(1)
    held = {
        "w": rng.standard_normal((channels, channels, 1, 1)).astype(np.float32),
        "halves": np.array([0, 2, channels // 2, 4, 4]),
        "whole": np.array([0, channels, 4, 4]),
    }
    shapes = ("x", [1, channels, 4, 4]), ("y", [1, channels, 4, 4])
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes]
    constants = [numpy_helper.from_array(a, n) for n, a in held.items()]
    made = [helper.make_node(op, inputs, [out], **more) for op, inputs, out, more in nodes]
    graph = helper.make_graph(made, "m", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data = [{"x": rng.standard_normal((1, channels, 4, 4), np.float32)} for _ in range(4)]
    report = qdqc.quantize(model, data).report
    return {row.name: (row.runs, row.reason) for row in report.audit.rows}


def test_integers_are_followed_through_all_that_moves_them() -> None:
    """The optimised file states no types for values in the middle of such a chain."""
    found = rows_of(
        ("Conv", ["x", "w"], "c", {}),
        ("Relu", ["c"], "r", {}),
        ("Reshape", ["r", "halves"], "s", {}),
        ("Transpose", ["s"], "t", {"perm": [0, 2, 1, 3, 4]}),
        ("Reshape", ["t", "whole"], "u", {}),
        ("Conv", ["u", "w"], "y", {}),
    )
    assert found == dict.fromkeys(["r", "s", "t", "u", "y"], ("integer", ""))


def test_a_product_whose_integers_are_restated_keeps_its_name() -> None:
    """A HardSigmoid adds to the integers of the product before it under another scale."""
    found = rows_of(
        ("Conv", ["x", "w"], "c", {}),
        ("HardSigmoid", ["c"], "h", {}),
        ("Mul", ["x", "h"], "g", {}),
        ("Conv", ["g", "w"], "y", {}),
    )
    assert found["c"] == ("integer", "")
    assert found["y"] == ("integer", "")


def test_what_is_no_model_is_told(tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"nothing of the kind")
    for name in ("no.onnx", "none.onnx"):
        with pytest.raises(qdqc.QdqcError):
            prove(tmp_path / name)
    with pytest.raises(qdqc.QdqcError, match="unknown target"):
        prove(foreign(tmp_path / "m.onnx", wrong_axis=False), "tpu")
