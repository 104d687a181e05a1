"""What runs in integers, held against onnxruntime's own optimised model."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, ValueInfoProto, helper, numpy_helper

from qdqc.calibration.table import Table, save_table
from qdqc.diagnostics import QdqcError
from qdqc.flow.deploy import deploy
from qdqc.flow.transform import transform
from qdqc.ir.graph import Module
from qdqc.ir.types import Range
from qdqc.onnx_io.exporter import export_onnx
from qdqc.onnx_io.importer import import_onnx
from qdqc.onnx_io.saver import save_onnx
from qdqc.pipeline.manager import run
from qdqc.quant.deployment import Deployment
from qdqc.quant.placement import Decision, decide
from qdqc.quant.targets.target import target_named
from qdqc.report.audit_text import audit_entries, render_audit
from qdqc.runtime.audit.audit import Audit, audit
from qdqc.runtime.audit.kernel import INTEGER_KERNELS
from qdqc.runtime.audit.kernels import optimised_model
from qdqc.runtime.sessions.taps import observable
from qdqc.text.parser import parse_module


def integer_kernels(model: onnx.ModelProto, path: Path) -> Counter[str]:
    onnx.save(model, str(path))
    nodes = optimised_model(path).graph.node
    return Counter(n.op_type for n in nodes if n.op_type in INTEGER_KERNELS)


def with_outputs(model: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    out = onnx.ModelProto()
    out.CopyFrom(model)
    held = {o.name for o in [*out.graph.output, *out.graph.input]}
    out.graph.output.extend(ValueInfoProto(name=n) for n in names if n not in held)
    return out


def test_taps_leave_integer_kernels_as_they_are(lowered: Module, tmp_path: Path) -> None:
    proto = export_onnx(lowered)
    alone = integer_kernels(proto, tmp_path / "alone.onnx")
    assert alone == {
        "QLinearConv": 3,
        "QLinearAdd": 1,
        "QLinearGlobalAveragePool": 1,
        "QGemm": 1,
    }
    fetched = [tap.fetched for tap in observable(lowered).values()]
    assert integer_kernels(with_outputs(proto, fetched), tmp_path / "tapped.onnx") == alone
    # The counter-proof: the floats before the quantizes make float kernels.
    floats = [r.name for n in lowered.walk() for r in n.present_results if r.name.endswith("_f")]
    assert floats
    spoilt = integer_kernels(with_outputs(proto, floats), tmp_path / "spoilt.onnx")
    assert spoilt.total() < alone.total()


def chain(path: Path) -> Path:
    """x -> conv a -> conv b -> conv c, 4 channels each."""
    rng = np.random.default_rng(3)
    weights = [
        numpy_helper.from_array(rng.standard_normal((4, 4, 1, 1)).astype(np.float32), f"w{n}")
        for n in "abc"
    ]
    nodes = [
        helper.make_node("Conv", [x, f"w{y}"], [y], name=f"conv_{y}")
        for x, y in zip("xab", "abc", strict=True)
    ]
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4, 6, 6]) for n in ("x", "c")]
    graph = helper.make_graph(nodes, "chain", infos[:1], infos[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path


def deployed(tmp_path: Path, qtable: str) -> tuple[Module, dict[str, Decision], Path]:
    """The chain in INT8 with a qtable, with what the placement said."""
    table, lines, path = (tmp_path / n for n in ("t", "q", "chain_int8.onnx"))
    save_table(Table({n: Range(-3, 3, 3) for n in "xabc"}), table)
    lines.write_text(qtable)
    pipeline = f'import-calibration{{table="{table}"}},assign-precision{{qtable="{lines}"}}'
    planned = run(import_onnx(chain(tmp_path / "chain.onnx")), pipeline)
    found = decide(planned.graph, target_named("ort-cpu"))
    decisions = {n.name: d for n, d in found.items()}
    module = run(planned, "quantize,lower-to-qdq")
    save_onnx(module, path)
    return module, decisions, path


def test_a_float_conv_between_integer_convs_stays_float(tmp_path: Path) -> None:
    module, decisions, path = deployed(tmp_path, "b F32\n")
    optimised = optimised_model(path)
    makers = {n.output[0]: n for n in optimised.graph.node}
    convs = [n for n in optimised.graph.node if n.op_type == "Conv"]
    assert [n.op_type for n in optimised.graph.node].count("QLinearConv") == 2
    assert len(convs) == 1

    # Its weight is the float one: nothing rounds it on the way.
    original = {
        t.name: numpy_helper.to_array(t)
        for t in onnx.load(tmp_path / "chain.onnx").graph.initializer
    }
    held = {t.name: numpy_helper.to_array(t) for t in optimised.graph.initializer}
    weight = convs[0].input[1]
    assert weight not in makers
    np.testing.assert_array_equal(held[weight], original["wb"])

    found = audit(module, decisions, path)
    rows = {r.name: r for r in found.rows if r.is_product}
    assert (rows["b"].runs, rows["b"].reason) == ("float", "its mode is F32")
    assert len(found.products("integer")) == 2
    assert found.findings == ()
    assert "float conv b: its mode is F32" in render_audit(found)


def test_all_integer_and_what_the_report_says(tmp_path: Path) -> None:
    found = audit(*deployed(tmp_path, ""))
    entries = audit_entries(found)
    assert (entries["integer"], entries["float"]) == (3, 0)
    assert [e["op"] for e in entries["ops"]] == ["conv"] * 3
    assert {e["kernel"] for e in entries["ops"]} == {"QLinearConv"}
    assert render_audit(found).startswith("integer: 3 of 3 Conv")


def test_what_goes_against_the_plan_is_a_finding(tmp_path: Path) -> None:
    """The plan says integer, but the file that runs is the float one."""
    module, decisions, _ = deployed(tmp_path, "")
    found: Audit = audit(module, decisions, tmp_path / "chain.onnx")
    assert {r.name for r in found.findings} <= {"a", "b", "c", "a_q", "b_q", "c_q", "c_f"}
    assert len(found.findings) == 3
    assert all("quantized, but onnxruntime left it float" in r.reason for r in found.rows)
    other: dict[str, Any] = dict.fromkeys(
        decisions, Decision(False, decisions["a"].traits, reason="as planned")
    )
    found = audit(module, other, tmp_path / "chain_int8.onnx")
    assert len(found.findings) == 3
    told = "planned in float (as planned), but onnxruntime runs it in integers"
    assert told in render_audit(found)


def test_a_file_that_cant_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(QdqcError, match="no such file"):
        optimised_model(tmp_path / "none.onnx")


@pytest.mark.parametrize("rows", ["4", "S"])
def test_a_matmul_with_a_bias_is_judged_by_its_product(rows: str, tmp_path: Path) -> None:
    """The bias is written out as an Add behind the integer product, at fixed and free sizes."""
    weight = ", ".join(str((i % 7 - 3) / 8) for i in range(24))
    text = f"""module @m {{opsets = {{"" = 17}}}} {{
  const %w : f32[8,3] = dense[{weight}]
  const %b : f32[3] = dense[0.5, -0.25, 1]
  graph (%x : f32[1,{rows},8] range(-2, 2, 2)) -> (%y) {{
    %y = matmul(%x, %w, %b) : f32[1,{rows},3] range(-4, 4, 4)
  }}
}}"""
    planned = run(parse_module(text, verify=True), "assign-precision")
    decisions = {n.name: d for n, d in decide(planned.graph, target_named("ort-cpu")).items()}
    lowered = run(planned, "quantize,lower-to-qdq")
    path = tmp_path / "m.onnx"
    save_onnx(lowered, path)
    found = audit(lowered, decisions, path)
    assert [(r.name, r.runs) for r in found.rows if r.is_product] == [("y", "integer")]
    assert not found.findings


@pytest.mark.parametrize(("op", "gates", "outputs"), [("GRU", 3, 2), ("LSTM", 4, 3), ("RNN", 1, 2)])
def test_a_product_before_a_node_whose_first_result_is_absent(
    op: str, gates: int, outputs: int, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    shapes = {"W": (16, 12), "G": (1, gates * 8, 12), "R": (1, gates * 8, 8)}
    weights = {n: rng.normal(size=s).astype(np.float32) * 0.3 for n, s in shapes.items()}
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["m"]),
        helper.make_node(op, ["m", "G", "R"], [""] * (outputs - 1) + ["y"], hidden_size=8),
    ]
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [5, 2, 16])]
    ends.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, None))
    tensors = [numpy_helper.from_array(a, n) for n, a in weights.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    source = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    done = deploy(transform(source).module, Deployment(mode="DYN8"))
    model, _ = done.write(tmp_path / "m.onnx")
    rows = done.prove(model, {"x": np.ones((5, 2, 16), np.float32)}).audit.rows
    integer = [r.name for r in rows if r.op == "matmul_integer" and r.runs == "integer"]
    assert len(integer) == 1
