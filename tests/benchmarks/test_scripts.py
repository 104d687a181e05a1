"""The scripts without assets and without peers: they load, and say what they skip."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from assets import assets_folder
from onnx import TensorProto, helper
from ort_quantizer import Samples, fixed_model, node_counts, optimised, prepared, quantized, session
from qdqc_commands import CommandError, Deployed, argv, run
from simplify import difference, random_inputs

SCRIPTS = Path(__file__).resolve().parents[2] / "benchmarks"
WITHOUT_PEERS = """
import runpy, sys
sys.modules["onnxslim"] = None
path, *sys.argv[1:] = sys.argv[1:]
sys.argv[0] = path
runpy.run_path(path, run_name="__main__")
"""


def start(script: str, *options: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k != "QDQC_ASSETS"}
    line = [sys.executable, "-c", WITHOUT_PEERS, str(SCRIPTS / script), *options]
    env["PYTHONPATH"] = str(SCRIPTS)
    return subprocess.run(line, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("script", "options"),
    [
        ("simplify.py", ("effnet", "minilm")),
        ("effnet.py", ()),
        ("calibration.py", ()),
        ("calibration_kills.py", ()),
        ("minilm.py", ()),
        ("deploy.py", ()),
        ("search.py", ("speed", "article", "minilm", "pareto", "kills")),
        ("accuracy.py", ("lite0", "minilm", "w4")),
    ],
)
def test_without_assets_a_script_says_that_it_skips(script: str, options: tuple[str, ...]) -> None:
    done = start(script, *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(line.startswith("skipped ") for line in done.stdout.splitlines())
    assert "set QDQC_ASSETS" in done.stdout


@pytest.mark.parametrize(
    "script",
    [
        "audit_counts.py",
        "digits.py",
        "ort_calibrator.py",
        "ort_versions.py",
        "openvino_cpu.py",
        "inspection.py",
    ],
)
def test_a_script_that_needs_no_assets_loads_without_peers(script: str) -> None:
    done = start(script, "--help")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_missing_peer_is_named() -> None:
    done = start("simplify.py", "digits", "--peers-only")
    assert done.returncode == 0, done.stderr
    assert "onnxslim is left out: it is not installed" in done.stdout
    assert "| onnxruntime basic |" in done.stdout


def test_assets_that_lack_a_file_are_said_to_lack_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QDQC_ASSETS", str(tmp_path))
    assert assets_folder("models/net.onnx") is None
    assert "does not hold it" in capsys.readouterr().out
    (tmp_path / "models").mkdir()
    assert assets_folder("models") == tmp_path


def test_commands_run_under_this_interpreter_and_tell_why_they_fail(tmp_path: Path) -> None:
    line = argv("qir_opt", "a", 3)
    assert (line[0], line[3:]) == (sys.executable, ["a", "3"])
    with pytest.raises(CommandError, match="qir_opt ended with exit code 1") as failed:
        run("qir_opt", tmp_path / "report.json", tmp_path / "missing.qir")
    assert "missing.qir" in str(failed.value)


def test_the_audit_is_summed_up() -> None:
    ops = [("conv", "integer"), ("add", "integer"), ("conv", "integer"), ("gemm", "float")]
    rows = [{"op": op, "runs": runs} for op, runs in ops]
    found = Deployed(Path("x.onnx"), {"audit": {"ops": rows, "integer": 2, "float": 1}})
    assert found.products() == "2 of 3"
    assert found.integer_by_op() == {"conv": 2, "add": 1}


def small_network(bias: float = 0.0) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((4, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Constant", [], ["zero"], value_float=bias),
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Add", ["c", "zero"], ["a"]),
        helper.make_node("Relu", ["a"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4, 6, 6])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_constants_are_no_nodes() -> None:
    assert node_counts(small_network()) == {"Conv": 1, "Add": 1, "Relu": 1}


def test_the_difference_is_relative_to_the_largest_output() -> None:
    assert difference(small_network(), small_network()) == 0.0
    shifted = difference(small_network(0.01), small_network())
    assert 1e-4 < shifted < 1e-2


def test_random_inputs_fit_tokens_and_masks() -> None:
    names = ("input_ids", "attention_mask", "token_type_ids")
    values = [helper.make_tensor_value_info(n, TensorProto.INT64, ["batch", "seq"]) for n in names]
    model = helper.make_model(helper.make_graph([], "tokens", values, []))
    feeds = random_inputs(model, 1)
    mask = feeds["attention_mask"]
    assert set(np.unique(mask)) <= {0, 1}
    assert (mask[:, 0] == 1).all()
    assert feeds["token_type_ids"].max() == 1
    assert feeds["input_ids"].max() > 1000


def test_onnxruntime_quantizes_what_it_is_given(tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    onnx.save(small_network(), str(path))
    fixed = fixed_model(path, tmp_path / "fixed.onnx", "N", 1)
    assert session(fixed).get_inputs()[0].shape == [1, 3, 8, 8]
    rng = np.random.default_rng(1)
    samples = [{"x": rng.standard_normal((1, 3, 8, 8), np.float32)} for _ in range(4)]
    ready = prepared(fixed, tmp_path / "ready.onnx")
    out = quantized(ready, tmp_path / "int8.onnx", samples)
    kernels = node_counts(optimised(out, tmp_path / "optimised.onnx", "extended"))
    assert kernels["QLinearConv"] == 1
    found, exact = (session(p).run(None, samples[0])[0] for p in (out, fixed))
    assert 0 < np.abs(found - exact).max() < 0.05 * np.abs(exact).max()


def test_samples_end_with_none() -> None:
    reader = Samples([{"x": np.zeros(1)}])
    assert reader.get_next() is not None
    assert reader.get_next() is None
