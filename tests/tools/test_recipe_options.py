"""run_calibration --recipe R --tuned OUT.qir, and what model_deploy makes of the two."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from qdqc.calibration.table import load_table
from qdqc.ir.data import Data
from qdqc.ir.graph import Module
from qdqc.ir.types import Elem, TensorType
from qdqc.ops import Conv
from qdqc.text.digest import module_digest
from qdqc.text.qir_files import load, save
from qdqc.tools.model_deploy import main as model_deploy
from qdqc.tools.run_calibration import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model y = conv(x) and samples, in a folder."""
    rng = np.random.default_rng(0)
    module = Module("m", {"": 17})
    x = module.graph.add_input("x", TensorType(Elem.F32, (1, 6, 8, 8)))
    weight = module.add_constant("w", Data.of(rng.normal(size=(40, 6, 3, 3)).astype(np.float32)))
    node = module.graph.insert(Conv(), [x, weight], None, ["y"])
    module.graph.set_outputs([node.result])
    save(module, tmp_path / "m.qir")
    sources = rng.normal(size=(20, 2, 8, 8))
    mixed = np.einsum("sc,nshw->nchw", rng.normal(size=(2, 6)), sources) + 0.1
    np.savez(tmp_path / "data.npz", x=mixed.astype(np.float32))
    return tmp_path


def run(folder: Path, *options: str) -> int:
    given = [str(folder / "m.qir"), "--dataset", str(folder / "data.npz")]
    return main([*given, "-o", str(folder / "t"), "--no_cache", *options])


@pytest.mark.parametrize("recipe", ["fast", "balanced", "best"])
def test_a_tuned_model_and_its_table_are_deployed(
    folder: Path, recipe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned, report = folder / "tuned.qir", folder / "r.json"
    before = (folder / "m.qir").read_bytes(), (folder / "m.safetensors").read_bytes()
    assert run(folder, "--recipe", recipe, "--tuned", str(tuned), "--report", str(report)) == 0
    assert before == ((folder / "m.qir").read_bytes(), (folder / "m.safetensors").read_bytes())
    table = load_table(folder / "t")
    assert table.header["digest"] == module_digest(load(tuned))
    assert table.header["recipe"] == recipe
    told = json.loads(report.read_text())["recipe"]
    assert told["name"] == recipe
    *exact, step = told["steps"]
    assert step["pipeline"].startswith("round-weights{")
    assert step["kept"] or recipe == "best"
    assert all(s["after"] is None for s in exact)
    out = capsys.readouterr().out
    assert f"recipe {recipe}, judged by the SQNR of the deployed outputs in dB:" in out
    assert f"{step['before']['sqnr']:.2f} to {step['after']['sqnr']:.2f}" in out
    assert ("nothing to change" in out) is (recipe != "fast")
    args = ["--mlir", str(tuned), "--calibration_table", str(folder / "t")]
    assert model_deploy([*args, "--model", str(folder / "out.onnx")]) == 0


def test_the_table_does_not_go_with_the_model_it_was_tuned_from(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, "--recipe", "fast", "--tuned", str(folder / "tuned.qir")) == 0
    args = ["--mlir", str(folder / "m.qir"), "--calibration_table", str(folder / "t")]
    assert model_deploy([*args, "--model", str(folder / "out.onnx")]) == 1
    assert "the calibration table belongs to another model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--recipe", "fast"], "one does not go without the other"),
        (["--tuned", "t.qir"], "one does not go without the other"),
        (["--recipe", "fats", "--tuned", "t.qir"], "unknown recipe 'fats'; did you mean 'fast'?"),
        (["--recipe", "fast", "--tuned", "t.onnx"], "--tuned t.onnx must end in .qir"),
        (["--recipe", "fast", "--tuned", "t.qir", "--target", "gpu"], "unknown target 'gpu'"),
        (["--recipe", "fast", "--tuned", "no/folder/t.qir"], "no/folder"),
    ],
)
def test_options_that_do_not_fit(
    folder: Path,
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    files = sorted(folder.iterdir())
    assert run(folder, *options) == 1
    assert message in capsys.readouterr().err
    assert sorted(folder.iterdir()) == files


def test_the_tuned_model_does_not_write_over_its_source(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, "--recipe", "fast", "--tuned", str(folder / "m.qir")) == 1
    assert "is also an input" in capsys.readouterr().err
