"""model_deploy --quantize AUTO as its user meets it: refusals, and the files that repeat it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from qdqc.text.parser import parse_module
from qdqc.text.qir_files import save
from qdqc.tools.model_deploy import main

NET = """module @net {opsets = {"" = 17}} {
  const %w : f32[8,4,1,1] = dense[WEIGHTS]
  const %v : f32[4,8,1,1] = dense[WEIGHTS]
  graph (%x : f32[1,4,16,16]) -> (%y) {
    %a = conv(%x, %w) {clamp = [0, inf]} : f32[1,8,16,16]
    %y = conv(%a, %v) : f32[1,4,16,16]
  }
}"""


@pytest.fixture
def net(tmp_path: Path) -> Path:
    rng = np.random.default_rng(6)
    text = NET
    for _ in range(2):
        weights = ", ".join(f"{w:.4f}" for w in rng.normal(0, 0.4, 32))
        text = text.replace("WEIGHTS", weights, 1)
    path = tmp_path / "net.qir"
    save(parse_module(text, verify=True), path)
    np.savez(tmp_path / "data.npz", x=rng.normal(size=(10, 4, 16, 16)).astype(np.float32))
    return path


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--quantize", "AUTO"], "none are given"),
        (["--quantize", "AUTO", "--dataset", "DATA", "--goal", "quick"], "'quick' is no goal"),
        (["--quantize", "AUTO", "--dataset", "DATA", "--goal", "0.01"], "none is given"),
        (["--quantize", "AUTO", "--dataset", "DATA", "--labels", "L"], "--labels are for a metric"),
        (["--quantize", "AUTO", "--dataset", "DATA", "--quant_input"], "leaves inputs and outputs"),
        (["--quantize", "AUTO", "--dataset", "DATA", "--quantize_table", "Q"], "finds the modes"),
        (["--quantize", "W8", "--dataset", "DATA"], "--dataset is for --quantize AUTO"),
        (["--quantize", "W8", "--goal", "25dB"], "--goal is for --quantize AUTO"),
    ],
)
def test_what_does_not_go_together_is_refused_and_nothing_is_written(
    net: Path, options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(net.with_name("data.npz")) if word == "DATA" else word for word in options]
    before = sorted(net.parent.iterdir())
    assert main(["--mlir", str(net), "--no_cache", *given]) == 1
    assert told in capsys.readouterr().err
    assert sorted(net.parent.iterdir()) == before


@pytest.mark.parametrize(("goal", "quantized"), [("1000ms", False), ("1dB", True)])
def test_the_files_beside_the_model_repeat_it(
    net: Path, goal: str, quantized: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """The nearest model of any speed is the float one; one of 1 dB need not be."""
    data, report = net.with_name("data.npz"), net.with_name("report.json")
    given = ["--mlir", str(net), "--quantize", "AUTO", "--dataset", str(data), "--no_cache"]
    assert main([*given, "--goal", goal, "--report", str(report)]) == 0
    assert "chosen" in capsys.readouterr().out
    auto = json.loads(report.read_text())["auto"]
    assert {c["label"] for c in auto["candidates"]} >= {"INT8", "by cost"}
    chosen, again = net.with_name("net_auto.onnx"), net.with_name("again.onnx")
    qtable, table = chosen.with_suffix(".qtable"), chosen.with_suffix(".cali_table")
    is_float = auto["modes"] == "F32"
    assert qtable.exists() is table.exists() is (not is_float)
    assert quantized or is_float
    options = ["--quantize", "F32"] if is_float else ["--calibration_table", str(table)]
    options += [] if is_float else ["--quantize_table", str(qtable)]
    assert main(["--mlir", str(net), "--model", str(again), *options, "-q"]) == 0
    sample = {"x": np.load(data)["x"][:1]}
    ours, theirs = (ort.InferenceSession(str(p)).run(None, sample)[0] for p in (chosen, again))
    assert np.array_equal(ours, theirs)
