"""model_deploy from end to end: what it tells, times and refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from qdqc.calibration.table import Table, save_table
from qdqc.ir.types import Range
from qdqc.text.parser import parse_module
from qdqc.text.qir_files import load, save
from qdqc.tools.model_deploy import main

NET = """module @net {opsets = {"" = 17}} {
  const %w : f32[4,3,3,3] = dense[WEIGHTS]
  const %v : f32[4,2] = dense[0.5, -0.5, 0.25, 1, -1, 0.5, 0.125, 0.75]
  const %s : i64[2] = dense[1, 4]
  graph (%x : f32[1,3,8,8] STATED) -> (%y) {
    %a = conv(%x, %w) {clamp = [0, inf]} : f32[1,4,6,6]
    %p = global_average_pool(%a) : f32[1,4,1,1]
    %r = reshape(%p, %s) : f32[1,4]
    %y = gemm(%r, %v) : f32[1,2]
  }
}"""

STATED = '{mean = [127.0, 127.0, 127.0], scale = [0.01, 0.01, 0.01], pixel_format = "rgb"}'


@pytest.fixture
def net(tmp_path: Path) -> Path:
    rng = np.random.default_rng(2)
    weights = ", ".join(f"{w:.4f}" for w in rng.normal(0, 0.3, 108))
    path = tmp_path / "net.qir"
    text = NET.replace("WEIGHTS", weights).replace("STATED", STATED)
    save(parse_module(text, verify=True), path)
    ranges = {"x": (-1.27, 1.28), "a": (0, 4), "p": (0, 2), "r": (0, 2), "y": (-3, 3)}
    rows = {n: Range(low, high, max(-low, high)) for n, (low, high) in ranges.items()}
    save_table(Table(rows, observed={"x": (-1.27, 1.28)}), tmp_path / "net.table")
    return path


def deploy(net: Path, *options: str) -> dict[str, Any]:
    report = net.with_name("report.json")
    given = ["--mlir", str(net), "--calibration_table", str(net.with_name("net.table"))]
    assert main([*given, "--report", str(report), *options]) == 0
    return json.loads(report.read_text())


def test_why_tells_kernel_types_and_rules(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    deploy(net, "--why", "a", "-q")
    told = capsys.readouterr().out
    assert told.startswith("conv 'a' runs in integers by QLinearConv\n")
    assert "  weight   %w : i8[4,3,3,3], 4 scales" in told
    assert "along axis 0, from -127 to 127" in told
    assert "  gives    %a : u8[1,4,6,6], scale 0.0156863, zero point 0" in told
    assert "keeps the rules of ort-cpu: " in told
    assert "breaks" not in told


def test_why_of_a_float_node_gives_the_reason(
    net: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = net.with_name("q")
    table.write_text("a F32\n")
    deploy(net, "--quantize_table", str(table), "--why", "a", "-q")
    assert capsys.readouterr().out.startswith(
        "conv 'a' runs in float by FusedConv: its mode is F32\n"
    )


THIN = """module @thin {opsets = {"" = 17}} {
  const %w : f32[1,1,3,3] = dense[0.1, 0.2, -0.1, 0.3, 0.1, -0.2, 0.1, -0.3, 0.2]
  graph (%x : f32[1,1,224,224]) -> (%y) {
    %a = conv(%x, %w) {pads = [1, 1, 1, 1]} : f32[1,1,224,224]
    %t = transpose(%a) {perm = [0, 1, 3, 2]} : f32[1,1,224,224]
    %y = conv(%t, %w) {pads = [1, 1, 1, 1]} : f32[1,1,224,224]
  }
}"""


def test_why_of_a_node_that_integers_would_slow_down(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "net.qir"
    save(parse_module(THIN, verify=True), path)
    save_table(Table(dict.fromkeys("xaty", Range(-4, 4, 4))), tmp_path / "net.table")

    def why(name: str, *options: str) -> str:
        deploy(path, "--why", name, "-q", *options)
        return capsys.readouterr().out.splitlines()[0]

    told = re.fullmatch(
        r"conv 'a' runs in float by Conv: integers would take about (\d+) us, float (\d+) us",
        why("a"),
    )
    assert told is not None
    assert int(told[1]) > int(told[2])
    assert why("t") == (
        "transpose 't' runs in float by Transpose: its neighbours are float: casts would take more "
        "than its integer kernel saves"
    )
    assert why("a", "--no-leave-float") == "conv 'a' runs in integers by QLinearConv"
    table = tmp_path / "q"
    table.write_text("a INT8\n")
    assert why("a", "--quantize_table", str(table)) == "conv 'a' runs in integers by QLinearConv"
    assert "float by" in why("y", "--quantize_table", str(table))


def test_the_benchmark_tells_both_models(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = deploy(net, "--benchmark", "-q")["benchmark"]
    assert set(found) == {"float", "deployed", "speedup", "rounds", "ops"}
    assert 0 < found["deployed"]["low"] <= found["deployed"]["median"] <= found["deployed"]["high"]
    ratio = found["float"]["median"] / found["deployed"]["median"]
    assert found["speedup"]["median"] == pytest.approx(ratio)
    assert "QLinearConv" in {row["op"] for row in found["ops"]["deployed"]}
    told = capsys.readouterr().out
    assert "times as fast" in told
    assert "ms by op, deployed:" in told


def test_pixels_in_and_integers_out(net: Path) -> None:
    found = deploy(net, "--fuse_preprocess", "--quant_output")
    assert found["bad_fusions"] == []
    assert found["audit"]["integer"] == 2
    model = net.with_name("net_int8.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 8, 8)).astype(np.uint8)
    y = ort.InferenceSession(model).run(None, {"x": pixels})[0]
    assert y.dtype == np.uint8
    plain = net.with_name("plain.onnx")
    deploy(net, "--model", str(plain))
    numbers = ((pixels - np.float32(127)) * np.float32(0.01)).astype(np.float32)
    wanted = ort.InferenceSession(plain).run(None, {"x": numbers})[0]
    quant = load(net.with_name("net_int8.qir")).graph.outputs[0].tensor.quant
    assert quant is not None
    shown = (y.astype(np.float32) - float(quant.zero_point)) * float(quant.scale)
    np.testing.assert_allclose(shown, wanted, atol=0.05 * np.abs(wanted).max())


@pytest.mark.parametrize("target", ["ort-cpu", "ort-cpu-avx2", "openvino"])
@pytest.mark.parametrize("mode", ["INT8", "DYN8", "W8", "W4", "F16", "F32"])
def test_every_mode_for_every_target(net: Path, target: str, mode: str) -> None:
    deploy(net, "--quantize", mode, "--target", target, "--model", str(net.with_name("m.onnx")))
    model = onnx.load(net.with_name("m.onnx"))
    onnx.checker.check_model(model, full_check=True)
    x = np.random.default_rng(1).normal(0, 0.4, (1, 3, 8, 8)).astype(np.float32)
    levels = ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    found = []
    for level in levels:
        options = ort.SessionOptions()
        options.graph_optimization_level = level
        session = ort.InferenceSession(model.SerializeToString(), options)
        found.append(session.run(None, {"x": x})[0])
    np.testing.assert_allclose(found[0], found[1], atol=0.03 * np.abs(found[0]).max())


def test_a_processor_without_vnni_gets_seven_bits(
    net: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("qdqc.flow.deploy.has_vnni", lambda: False)
    deploy(net)
    assert "this processor has no VNNI" in capsys.readouterr().err
    module = load(net.with_name("net_int8.qir"))
    weights = [c for c in module.constants.values() if c.tensor.elem.text == "i8"]
    assert weights
    assert max(int(np.abs(c.data.array()).max()) for c in weights) == 63
    assert module.header["target"] == "ort-cpu-avx2"
