"""Deployments: what headers keep of tables, and what a deployment refuses and returns."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import qdqc
from qdqc.flow.deploy import deploy
from qdqc.flow.inspect import making_of
from qdqc.flow.listener import Listener
from qdqc.inspection.measure import measure
from qdqc.tools.model_deploy import main as model_deploy

Samples = list[dict[str, Any]]


@pytest.fixture(scope="module")
def samples() -> Samples:
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal((1, 3, 8, 8)).astype(np.float32)} for _ in range(8)]


@pytest.fixture(scope="module")
def module(tiny_onnx: Path) -> qdqc.Module:
    return qdqc.transform(tiny_onnx).module


@pytest.fixture(scope="module")
def table(module: qdqc.Module, samples: Samples) -> qdqc.Table:
    return qdqc.calibrate(module, samples)


def test_two_deployments_of_one_table_are_equal(
    module: qdqc.Module, table: qdqc.Table, tmp_path: Path
) -> None:
    """By commands from two folders, and from Python: text, weights and digest are the same."""
    texts: list[str] = []
    for name in ("here", "there"):
        folder = tmp_path / name
        folder.mkdir()
        qdqc.save(module, folder / "net.qir")
        qdqc.save_table(table, folder / f"{name}.cali_table")
        (folder / f"{name}.qtable").write_text(f"# {name}\nc2 F32\n")
        words = ["--mlir", str(folder / "net.qir"), "--model", str(folder / "out.onnx"), "-qq"]
        words += ["--calibration_table", str(folder / f"{name}.cali_table")]
        assert model_deploy([*words, "--quantize_table", str(folder / f"{name}.qtable")]) == 0
        texts.append((folder / "out.qir").read_text())
    assert texts[0] == texts[1]
    qtable = qdqc.Qtable.of({"c2": "F32"})
    again = deploy(module, table=table, qtable=qtable).module
    assert again == qdqc.load(tmp_path / "here" / "out.qir")
    assert again.header["calibration_table"] == table.digest
    assert again.header["qtable"] == qtable.digest
    other = deploy(module, table=table).module
    assert "qtable" not in other.header


def test_what_a_model_was_deployed_by_is_found_beside_it(
    module: qdqc.Module, table: qdqc.Table, tmp_path: Path
) -> None:
    qtable = qdqc.Qtable.of({"c2": "F32"})
    deployed = deploy(module, table=table, qtable=qtable).module
    qdqc.save(deployed, tmp_path / "out.qir")
    bare = making_of(tmp_path / "out.qir", deployed)
    assert (bare.table, bare.qtable) == (None, None)
    assert "import-calibration" in bare.pipeline
    (tmp_path / "a.cali_table").write_text("no table at all")
    qdqc.save_table(table, tmp_path / "z.cali_table")
    (tmp_path / "other.qtable").write_text("c1 F32\n")
    (tmp_path / "this.qtable").write_text("c2 F32\n")
    making = making_of(tmp_path / "out.qir", deployed)
    assert making.table == table.as_written()
    assert making.qtable == qtable


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "mode INT8 needs `table`"),
        ({"deployment": {"mode": "F32"}, "qtable": {"c2": "W8"}}, "nothing for `qtable` to decide"),
        ({"deployment": {"target": "ort-cpo"}}, "unknown target 'ort-cpo'"),
    ],
)
def test_what_can_not_be_deployed_is_said(
    module: qdqc.Module, given: dict[str, Any], message: str
) -> None:
    deployment = qdqc.Deployment(**given.get("deployment", {}))
    qtable = qdqc.Qtable.of(given["qtable"]) if "qtable" in given else None
    with pytest.raises(qdqc.QdqcError, match=message):
        deploy(module, deployment, qtable=qtable)


def test_a_flow_reports_to_its_listener(module: qdqc.Module, samples: Samples) -> None:
    heard: list[tuple[Any, ...]] = []
    listener = Listener(progress=lambda *given: heard.append(given), warn=heard.append)
    qdqc.calibrate(module, samples, listener=listener)
    stages = {entry[0] for entry in heard}
    assert stages == {"calibration"}
    assert heard[0][2] == 0, "a stage opens before its first sample is done"
    assert max(entry[2] for entry in heard) == len(samples)


def test_a_library_call_writes_nothing_to_its_module(
    module: qdqc.Module, table: qdqc.Table
) -> None:
    before = qdqc.to_text(module)
    deploy(module, table=table)
    qdqc.transform(module)
    assert qdqc.to_text(module) == before


def test_results_pickle_and_compare(tiny_onnx: Path, samples: Samples) -> None:
    result = qdqc.quantize(tiny_onnx, samples)
    layers = qdqc.search_layers(tiny_onnx, samples, expected_cos=0.999994)
    copy, layers_again = pickle.loads(pickle.dumps((result, layers)))
    assert copy.report == result.report
    assert copy.module == result.module
    assert copy.model.SerializeToString() == result.model.SerializeToString()
    assert layers_again == layers
    same = qdqc.quantize(tiny_onnx, samples)
    assert same.report == result.report
    text = str(result.report)
    assert "integer: 4 of 4" in text
    assert f"{result.report.proof.bytes['deployed']:,} bytes" in text


def test_what_no_reader_tells_apart_is_no_loss() -> None:
    """Below -3 a HardSwish gives 0: integers do not reach there, and nobody is blamed for it."""
    rng = np.random.default_rng(0)
    weights = {"w": 40 * rng.standard_normal((8, 3, 3, 3)), "v": rng.standard_normal((4, 8, 1, 1))}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("HardSwish", ["c"], ["h"]),
        helper.make_node("Conv", ["h", "v"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [value("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(w.astype(np.float32), n) for n, w in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    feeds = [{"x": rng.standard_normal((1, 3, 8, 8)).astype(np.float32)} for _ in range(8)]
    module = qdqc.transform(proto).module
    table = qdqc.calibrate(module, feeds)
    assert table.observed["c"][0] < -100
    assert table.rows["c"].min == pytest.approx(-3, abs=0.1)
    deployed = deploy(module, table=table)
    rows = {row.name: row for row in deployed.check(deployed.samples(), every_value=True).rows}
    assert rows["c"].sqnr > 35
    assert rows["y"].sqnr > 35
    figures = {f.name: f for f in measure(deployed.module, deployed.reference, feeds).figures}
    assert figures["c"].low >= -3
    assert figures["c"].outside < 0.01
