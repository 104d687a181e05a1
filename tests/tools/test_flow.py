"""The whole way of a tiny network: transform, calibrate, deploy, run, compare."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from PIL import Image

from qdqc.data.archive import Archive
from qdqc.diagnostics import QdqcError
from qdqc.text.qir_files import load
from qdqc.tools import (
    model_deploy,
    model_inspect,
    model_runner,
    model_transform,
    npz_tool,
    qir_opt,
    run_calibration,
)

COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "model_transform": model_transform.main,
    "run_calibration": run_calibration.main,
    "model_deploy": model_deploy.main,
    "model_inspect": model_inspect.main,
    "model_runner": model_runner.main,
    "npz_tool": npz_tool.main,
    "qir_opt": qir_opt.main,
}
BIN = Path(sys.executable).parent


def call(line: str) -> int:
    name, *words = line.split()
    return COMMANDS[name](words)


def report_of(line: str, code: int = 0) -> dict[str, Any]:
    assert call(f"{line} -q --report report.json") == code
    return json.loads(Path("report.json").read_text())


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


@pytest.fixture(scope="module")
def stage(
    tiny_onnx: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """Files after transform and calibration."""
    folder = tmp_path_factory.mktemp("stage")
    (folder / "tiny.onnx").write_bytes(tiny_onnx.read_bytes())
    (folder / "in.npz").write_bytes(tiny_data.read_bytes())
    here = Path.cwd()
    os.chdir(folder)
    try:
        assert call("model_transform --model_def tiny.onnx -o tiny.qir -q") == 0
        line = "run_calibration tiny.qir --dataset in.npz -o tiny.cali --cali_method max -q"
        assert call(line) == 0
    finally:
        os.chdir(here)
    return contents(folder)


@pytest.fixture
def folder(stage: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, blob in stage.items():
        (tmp_path / name).write_bytes(blob)
    return tmp_path


def test_int8(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(folder)
    report = report_of("model_deploy --mlir tiny.qir --calibration_table tiny.cali")
    assert {n: b for n, b in contents(folder).items() if n in before} == before
    new = set(contents(folder)) - set(before) - {"report.json"}
    assert new == {"tiny_int8.onnx", "tiny_int8.qir", "tiny_int8.safetensors"}

    audit = report["audit"]
    assert (audit["integer"], audit["float"]) == (4, 0)
    assert [(o["name"], o["op"], o["kernel"]) for o in audit["ops"] if o["op"] == "conv"] == [
        (n, "conv", "QLinearConv") for n in ("r1", "c2", "c3")
    ]
    assert {o["runs"] for o in audit["ops"]} == {"integer"}
    assert report["source"] == "calibration"
    assert report["outputs"]["y"]["cos"] > 0.99
    assert report["outputs"]["y"]["sqnr"] > 15
    assert report["bytes"]["deployed"] == (folder / "tiny_int8.onnx").stat().st_size
    assert report["bytes"]["float"] > 0
    assert report["seconds"] > 0
    assert report["peak_memory_bytes"] > 2**20
    assert capsys.readouterr().out == ""
    assert load("tiny_int8.qir").header["target"] == "ort-cpu"


def test_the_deployed_model_is_near_the_float_one(folder: Path) -> None:
    line = "model_deploy --mlir tiny.qir --calibration_table tiny.cali --test_input in.npz -q"
    assert call(line) == 0
    feeds = dict(Archive("in.npz"))
    runs = [
        ort.InferenceSession(f, providers=["CPUExecutionProvider"]).run(None, feeds)[0]
        for f in ("tiny.onnx", "tiny_int8.onnx")
    ]
    noise = float(((runs[0] - runs[1]) ** 2).sum() / (runs[0] ** 2).sum())
    assert noise < 1e-3
    assert noise > 0, "the second one is the quantized one"


def test_a_qtable_keeps_nodes_in_float(folder: Path) -> None:
    (folder / "q").write_text("# head\nc3 F32\ntype:gemm f32\n")
    line = "model_deploy --mlir tiny.qir --calibration_table tiny.cali --quantize_table q"
    report = report_of(f"{line} --model mixed.onnx --test_input in.npz")
    assert (report["audit"]["integer"], report["audit"]["float"]) == (2, 2)
    floats = {o["name"]: o["reason"] for o in report["audit"]["ops"] if o["op"] in ("conv", "gemm")}
    assert floats == {"r1": "", "c2": "", "c3": "its mode is F32", "y": "its mode is F32"}


def test_float_deployment(folder: Path) -> None:
    report = report_of("model_deploy --mlir tiny.qir --quantize F32")
    assert (report["audit"]["integer"], report["audit"]["float"]) == (0, 4)
    assert (folder / "tiny_f32.onnx").exists()


@pytest.mark.parametrize("mode", ["DYN8", "W8", "W4"])
def test_modes_without_a_table(folder: Path, mode: str) -> None:
    line = f"model_deploy --mlir tiny.qir --quantize {mode} --test_input in.npz"
    report = report_of(line)
    assert 0.95 < report["outputs"]["y"]["cos"] <= 1
    assert (folder / f"tiny_{mode.lower()}.onnx").exists()


def test_groups_that_have_no_kernel(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("model_deploy --mlir tiny.qir --quantize W4 --q_group_size 20 -q") == 1
    assert "groups of 20 weights have no kernel" in capsys.readouterr().err
    assert not (folder / "tiny_w4.onnx").exists()


def test_run_and_compare(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = "model_deploy --mlir tiny.qir --calibration_table tiny.cali --test_input in.npz -q"
    assert call(line) == 0
    for model in ("tiny.qir", "tiny_int8.qir", "tiny_int8.onnx"):
        run = f"model_runner --input in.npz --model {model} --output {model}.npz -q"
        assert call(f"{run} --dump_all_tensors") == 0
    capsys.readouterr()
    line = "npz_tool compare tiny_int8.onnx.npz tiny.qir.npz --tolerance"
    assert call(f"{line} 0.99,0.9") == 0
    assert capsys.readouterr().out.startswith("8 compared, 8 passed, 0 failed")
    assert call(f"{line} 0.9999999,0.9999999") == 1
    assert "first below tolerance:\n  NOT_SIMILAR" in capsys.readouterr().out
    assert call("npz_tool compare tiny_int8.onnx.npz tiny_int8.qir.npz -v") == 0
    out = capsys.readouterr().out
    assert out.count("EQUAL") >= 8
    assert "SIMILAR" not in out


def test_a_failed_check_leaves_no_model_under_its_name(folder: Path) -> None:
    line = "model_deploy --mlir tiny.qir --calibration_table tiny.cali --test_input in.npz"
    report = report_of(f"{line} --tolerance 0.9999999,0.9999999 --model strict.onnx", 1)
    assert report["exit_code"] == 1
    assert not (folder / "strict.onnx").exists()
    assert (folder / "strict.onnx.rejected").exists()
    assert not (folder / "strict.qir").exists()
    assert (folder / "strict.rejected.qir").exists()


def test_without_the_model_its_ir_goes_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise QdqcError("can't write 'late.onnx': No space left on device")

    monkeypatch.setattr("qdqc.flow.deploy.onnx_files", full)
    line = "model_deploy --mlir tiny.qir --calibration_table tiny.cali --model late.onnx"
    assert call(line) == 1
    assert "No space left" in capsys.readouterr().err
    assert not list(folder.glob("late*"))


def test_on_random_inputs_a_difference_is_only_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "model_deploy --mlir tiny.qir --calibration_table tiny.cali --model told.onnx"
    (folder / "tiny.cali.samples.npz").unlink()
    report = report_of(f"{line} --tolerance 0.9999999,0.9999999")
    assert report["source"] == "random (weak)"
    assert (folder / "told.onnx").exists()
    told = capsys.readouterr().err
    assert "the samples that the calibration table was written with are not beside it" in told
    assert "warning: the outputs differ from float" in told
    assert call(line.replace("told", "again")) == 0
    assert "a check on random inputs is weak" in capsys.readouterr().err


def test_reports_of_the_first_two_steps(folder: Path) -> None:
    line = "model_transform --model_def tiny.onnx -o again.qir --test_input in.npz"
    report = report_of(f"{line} --test_result all.npz")
    assert report["nodes"] == {"imported": 9, "transformed": 7}
    check = report["check"]
    assert (check["source"], check["compared"], check["passed"]) == ("in.npz", 7, True)
    assert (check["against"], check["sure"]) == ("source", True)
    assert check["source_agrees_with_itself_db"] > 100
    assert {"r1", "c2", "y"} <= set(Archive("all.npz"))
    report = report_of("run_calibration tiny.qir --dataset in.npz -o t --input_num 5")
    assert (report["tensors"], report["samples"], report["method"]) == (8, 5, "mse")


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_states_every_default_and_an_example(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    npz_parts = ["", *npz_tool.COMMANDS]
    parts = npz_parts if name == "npz_tool" else [""]
    for part in parts:
        assert call(f"{name} {part} --help") == 0
        text = capsys.readouterr().out
        options, _, example = text.partition("example:")
        assert example.strip().startswith(name)
        for entry in options.split("\n  -")[1:]:
            flat = " ".join(entry.split())
            listed = flat.startswith(("h, --help", "-version", "-list-"))
            required = "[-" in options and any(
                flat.startswith(f"-{w}") for w in ("model_def", "mlir F.qir", "input F", "model F ")
            )
            required = required or flat.startswith(("o TABLE", "-dataset", "-data_list"))
            assert listed or required or "default" in flat, f"{name} {part}: {flat}"


SLOW = "run_calibration tiny.qir --dataset many --batch_size 1 -o out.cali"


def test_an_interrupted_step_leaves_nothing(folder: Path) -> None:
    (folder / "many").mkdir()
    np.savez_compressed(folder / "many" / "x.npz", x=np.zeros((120_000, 3, 8, 8), np.float32))
    before = contents(folder)
    process = subprocess.Popen(
        [BIN / "run_calibration", *SLOW.split()[1:]],
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job, such as this test may be, has its interrupts ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    kept = Path(os.environ["XDG_CACHE_HOME"])
    while not list(kept.rglob("*.statistics")):  # what an interrupted run goes on from
        assert process.poll() is None, "it ended before anything was kept"
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err == "interrupted: the same command goes on from there\n"
    assert contents(folder) == before


@pytest.mark.parametrize(
    "line",
    [
        "model_transform --model_def tiny.onnx -o new.qir",
        "model_deploy --mlir tiny.qir --calibration_table tiny.cali --model new.onnx",
        "model_runner --input in.npz --model tiny.qir --dump_all_tensors --output new.npz",
    ],
)
def test_a_full_disk_leaves_nothing(folder: Path, line: str) -> None:
    """A limit on the size of files stands in for it: writing fails in the middle."""
    before = contents(folder)

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    name, *words = line.split()
    done = subprocess.run(
        [BIN / name, *words], preexec_fn=limit, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "can't write" in done.stderr
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert contents(folder) == before


def test_an_image_to_check_with_becomes_the_input_of_both(folder: Path) -> None:
    """The original's file does not say how: the options do."""
    Image.new("RGB", (8, 8), (100, 50, 0)).save("i.png")
    stated = "--pixel_format rgb --scale .01,.01,.01 --input_shapes [[1,3,8,8]]"
    report = report_of(
        f"model_transform --model_def tiny.onnx -o image.qir {stated} --test_input i.png "
        "--test_result image.npz -q"
    )
    assert report["check"]["passed"]
    x = Archive("image.npz")["x"]
    np.testing.assert_allclose(x[0, :, 3, 3], [1.0, 0.5, 0.0], rtol=1e-6)
