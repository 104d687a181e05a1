"""A module made of a user's ops runs through every command that is given the plugin."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from qdqc.ir.op import OPS
from qdqc.tools import model_deploy, model_runner, run_calibration

PLUGIN = '''
from qdqc import Op, TensorType
from qdqc.ir.op import Onnx


class Rectify(Op):
    """What others call Relu."""

    name = "user.rectify"
    operands = ("x",)
    onnx = Onnx("Relu")

    def infer(self, x: TensorType) -> tuple[TensorType]:
        return (TensorType(x.elem, x.shape),)
'''
MODULE = """\
module @user {opsets = {"" = 17}} {
  graph (%x : f32[1,8]) -> (%y) {
    %y = user.rectify(%x) : f32[1,8] loc("/act")
  }
}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "ops.py").write_text(PLUGIN)
    (tmp_path / "user.qir").write_text(MODULE)
    x = np.linspace(-1, 1, 32, dtype=np.float32).reshape(4, 8)
    np.savez(tmp_path / "data.npz", x=x)
    monkeypatch.chdir(tmp_path)
    with OPS.scratch():
        yield tmp_path


def test_without_the_plugin_the_op_is_unknown(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = model_runner.main(["--model", "user.qir", "--input", "data.npz", "--output", "o.npz"])
    said = capsys.readouterr().err
    assert code == 1
    assert "user.qir:3:10: error: unknown op 'user.rectify'" in said
    assert not (folder / "o.npz").exists()


def test_every_command_takes_the_plugin(folder: Path) -> None:
    plugin = ["--plugin", "ops.py", "-q"]
    run = ["--model", "user.qir", "--input", "data.npz", "--output", "o.npz"]
    assert model_runner.main([*run, *plugin]) == 0
    with np.load(folder / "o.npz", allow_pickle=False) as found, np.load("data.npz") as data:
        np.testing.assert_array_equal(found["y"], np.maximum(data["x"], 0))
    calibrate = ["user.qir", "--dataset", "data.npz", "-o", "user.cali_table"]
    assert run_calibration.main([*calibrate, *plugin]) == 0
    deploy = ["--mlir", "user.qir", "--calibration_table", "user.cali_table", "--model", "o.onnx"]
    assert model_deploy.main([*deploy, *plugin]) == 0
    assert (folder / "o.onnx").exists()
