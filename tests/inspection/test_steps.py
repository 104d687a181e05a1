"""What passes changed around a node."""

from __future__ import annotations

from pathlib import Path

import pytest

import qdqc
from qdqc.calibration.table import load_table
from qdqc.inspection.stages import made_by, quantized_stage, reference_stage
from qdqc.inspection.steps import replayed
from qdqc.ir.graph import Module
from qdqc.text.qir_files import load

TEXT = """module @m {opsets = {"" = 17}} {
  const %w : f32[4,3,1,1] = dense[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
  graph (%x : f32[1,3,8,8]) -> (%y) {
    %c = conv(%x, %w) : f32[1,4,8,8] loc("/c")
    %y = relu(%c) : f32[1,4,8,8] loc("/r")
  }
}"""


@pytest.fixture
def module() -> Module:
    return qdqc.from_text(TEXT)


def test_lines_before_and_after_stand_at_every_node_that_they_came_from(module: Module) -> None:
    found = replayed(module, "canonicalize,fuse-activation")
    assert found.refused == ""
    (step,) = found.steps["/c"]
    assert step.pass_name == "fuse-activation"
    assert step.lines == (
        "-%c = conv(%x, %w) : f32[1,4,8,8]",
        "+%y = conv(%x, %w) {clamp = [0, inf]} : f32[1,4,8,8]",
    )
    assert found.steps["/r"][0].lines[0] == "-%y = relu(%c) : f32[1,4,8,8]"
    assert qdqc.to_text(module).strip() == TEXT.strip(), "the module stays as it is"


def test_only_what_came_after_the_reference_runs(module: Module) -> None:
    module.header["pipeline"] = "canonicalize"
    assert "/c" in replayed(module, "canonicalize,fuse-activation").steps
    assert "does not say by which passes" in replayed(module, "fuse-activation").refused
    assert "does not say by which passes" in replayed(module, "").refused


def test_a_file_that_went_away_is_told(module: Module) -> None:
    found = replayed(module, 'import-calibration{table="gone"}')
    assert "can't run again" in found.refused
    assert found.steps == {}


def test_the_pipeline_of_a_deployed_model(digits: Path, tmp_path: Path) -> None:
    said = load(digits / "digits_int8.qir").header["pipeline"]
    for name in ("digits_int8.qir", "digits_int8.onnx"):
        assert made_by(digits / name, quantized_stage(digits / name))["pipeline"] == said
    alone = tmp_path / "alone.onnx"
    alone.write_bytes((digits / "digits_int8.onnx").read_bytes())
    assert made_by(alone, quantized_stage(alone)) == {}


def test_a_deployment_replayed(digits: Path) -> None:
    reference = reference_stage(digits / "digits.qir")
    said = str(load(digits / "digits_int8.qir").header["pipeline"])
    assert "needs a calibration table" in replayed(reference, said).refused
    found = replayed(reference, said, load_table(digits / "digits.cali_table"))
    names = [s.pass_name for s in found.steps["/stem/conv/Conv"]]
    assert names[0] == "import-calibration"
    assert names[-2:] == ["quantize", "lower-to-qdq"]
    assert found.decisions["/pool/GlobalAveragePool_output_0"].integer
