"""Faults are planted into the digits network, and ``model_inspect`` names them first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from qdqc.calibration.table import load_table, save_table
from qdqc.ir.types import Range
from qdqc.tools.model_deploy import main as deploy
from qdqc.tools.model_inspect import main
from qdqc.tools.model_transform import main as transform

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"


def deployed(qir: Path, table: Path, model: Path, *options: str) -> None:
    given = ["--mlir", str(qir), "--calibration_table", str(table), "--model", str(model), "-qq"]
    assert deploy([*given, "--tolerance=-1,-9", *options]) == 0


def inspected(
    capsys: pytest.CaptureFixture[str], reference: Path, quantized: Path, data: Path, *options: str
) -> tuple[list[dict[str, Any]], str]:
    """The causes, first to last, and the text."""
    report = quantized.with_suffix(".json")
    given = ["--reference", reference, "--quantized", quantized, "--input", data]
    words = [*map(str, given), "--text", "-q", "--report", str(report), *options]
    assert main(words) == 0
    return json.loads(report.read_text())["causes"], capsys.readouterr().out


def test_a_healthy_model_has_no_cause(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for quantized in (digits / "digits_int8.onnx", digits / "digits_int8.qir"):
        found, text = inspected(capsys, digits / "digits.qir", quantized, DIGITS / "test.npz")
        assert found == []
        assert "no cause stands out" in text
        assert "no value is below tolerance 0.99,0.9" in text


@pytest.mark.parametrize(
    "options",
    [["--quant_input", "--quant_output"], ["--fuse_preprocess"], ["--quantize", "W8"]],
    ids=lambda words: words[0],
)
def test_other_forms_of_a_healthy_model(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    deployed(digits / "digits.qir", digits / "digits.cali_table", tmp_path / "m.onnx", *options)
    for model in (tmp_path / "m.onnx", tmp_path / "m.qir"):
        found, text = inspected(capsys, digits / "digits.qir", model, DIGITS / "photos")
        assert found == []
        assert "largest element agrees in 100.0%" in text


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(
    "name",
    [
        "image",
        "/stem/norm/BatchNormalization_output_0",
        "/stem/act/HardSwish_output_0",
        "/block2/depth/act/Clip_output_0",
        "/block2/Add_output_0",
        "/block5/depth/act/HardSwish_output_0",
        "/pool/GlobalAveragePool_output_0",
    ],
)
def test_a_threshold_divided_by_20(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, symmetric: bool
) -> None:
    table = load_table(digits / "digits.cali_table")
    row = table.rows[name]
    table.rows[name] = Range(row.min / 20, row.max / 20, row.threshold / 20)
    save_table(table, tmp_path / "planted.cali_table")
    scheme = ["--symmetric"] if symmetric else []
    model = tmp_path / "planted.onnx"
    deployed(digits / "digits.qir", tmp_path / "planted.cali_table", model, *scheme)
    found, text = inspected(capsys, digits / "digits.qir", model, DIGITS / "test.npz")
    assert found[0]["name"] == name
    assert found[0]["kind"] == ("calibration" if name == "image" else "saturation")
    assert f"'{name}'" in text.partition("  1. ")[2].partition("\n")[0]
    assert "first below tolerance" in text


@pytest.mark.parametrize(
    "weight", ["stem.conv.weight", "block2.depth.conv.weight", "block4.project.conv.weight"]
)
def test_scales_of_one_weight_at_other_channels(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], weight: str
) -> None:
    proto = onnx.load(digits / "digits_int8.onnx")
    tensors = {t.name: t for t in proto.graph.initializer}
    cast = next(n for n in proto.graph.node if n.input[:1] == [f"{weight}_bn_q"])
    held = tensors[cast.input[1]]
    scales = np.random.default_rng(0).permutation(numpy_helper.to_array(held))
    held.CopyFrom(numpy_helper.from_array(scales, held.name))
    onnx.save(proto, tmp_path / "planted.onnx")
    found, text = inspected(
        capsys, digits / "digits.qir", tmp_path / "planted.onnx", DIGITS / "test.npz"
    )
    guilty = weight.removesuffix(".conv.weight").replace(".", "/")
    assert found[0]["name"].startswith(f"/{guilty}/")
    assert found[0]["kind"] == "weight"
    assert "the scales stand at other channels" in " ".join(text.split())


def test_mean_and_scale_swapped_for_calibration_only(
    digits: Path, swapped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = load_table(swapped / "swapped.cali_table")
    del table.header["digest"]  # it would tell that the table belongs to another model
    save_table(table, tmp_path / "planted.cali_table")
    model = tmp_path / "planted.onnx"
    deployed(digits / "digits.qir", tmp_path / "planted.cali_table", model)
    found, text = inspected(capsys, digits / "digits.qir", model, DIGITS / "photos")
    assert (found[0]["kind"], found[0]["name"]) == ("calibration", "image")
    assert "calibration saw other data or another preprocessing" in " ".join(text.split())


@pytest.mark.parametrize("known", ["--test_input", "--test_result", None])
def test_mean_and_scale_swapped_in_both(
    swapped: Path, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], known: str
) -> None:
    qir = swapped / "swapped.qir"
    model = tmp_path / "planted.onnx"
    deployed(qir, swapped / "swapped.cali_table", model)
    options: list[str] = []
    if known == "--test_input":
        options = [known, str(DIGITS / "calib.npz")]
    elif known == "--test_result":
        right = ["--model_def", str(DIGITS / "digits.onnx"), "-o", str(tmp_path / "right.qir")]
        result = ["--test_input", str(DIGITS / "calib.npz"), "--test_result"]
        assert transform([*right, *result, str(tmp_path / "right.npz"), "-q"]) == 0
        options = [known, str(tmp_path / "right.npz")]
    found, text = inspected(capsys, qir, model, DIGITS / "photos", *options)
    assert (found[0]["kind"], found[0]["name"]) == ("preprocessing", "image")
    wanted = "run that is known to be right" if known else "mean and scale look swapped"
    assert wanted in " ".join(text.partition("  1. ")[2].partition("  2. ")[0].split())
