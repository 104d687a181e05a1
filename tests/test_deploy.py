"""The whole flow in one call."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import compiler
from compiler.data.archive import Archive


@pytest.fixture
def samples(tiny_data: Path) -> list[dict[str, Any]]:
    held = dict(Archive(tiny_data))
    count = len(next(iter(held.values())))
    return [{n: a[i : i + 1] for n, a in held.items()} for i in range(count)]


def ran(model: Any, feeds: dict[str, Any]) -> Any:
    return ort.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, feeds)[0]


@pytest.mark.parametrize("mode", ["int8", "DYN8", "w8", "w4", "f16", "f32"])
def test_every_mode(
    tiny_onnx: Path,
    samples: list[dict[str, Any]],
    mode: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    result = compiler.quantize(str(tiny_onnx), iter(samples), mode=mode)
    assert not list(tmp_path.iterdir()), "no file is left behind"
    onnx.checker.check_model(result.model, full_check=True)
    assert set(result.report) == {"outputs", "audit", "bytes", "bad_fusions"}
    assert result.report["bad_fusions"] == []
    similar = result.report["outputs"]["y"]
    cosines = []
    for sample in samples[:4]:
        exact = ran(str(tiny_onnx), sample)
        found = ran(result.model.SerializeToString(), sample)
        cosines.append((exact * found).sum() / np.linalg.norm(exact) / np.linalg.norm(found))
    assert similar["cos"] == pytest.approx(np.mean(cosines), abs=1e-4)
    assert similar["cos"] > 0.97
    assert result.report["audit"]["integer"] == (4 if mode in ("int8", "DYN8") else 0)
    assert result.report["bytes"]["deployed"] == result.model.ByteSize()


def test_a_model_in_memory_and_data_in_a_file(tiny_onnx: Path, tiny_data: Path) -> None:
    result = compiler.quantize(onnx.load(tiny_onnx), tiny_data)
    assert result.report["outputs"]["y"]["cos"] > 0.99


def test_a_qtable_in_memory_and_integers_at_the_ends(
    tiny_onnx: Path, samples: list[dict[str, Any]]
) -> None:
    whole = compiler.quantize(tiny_onnx, samples)
    conv = next(r["name"] for r in whole.report["audit"]["ops"] if r["op"] == "conv")
    mixed = compiler.quantize(
        tiny_onnx, samples, qtable={conv: "F32"}, quant_input=True, quant_output=True
    )
    assert mixed.report["audit"]["integer"] == whole.report["audit"]["integer"] - 1
    assert mixed.model.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    with pytest.raises(compiler.QdqcError, match="matches no node"):
        compiler.quantize(tiny_onnx, samples, qtable={"nothing": "F32"})


def test_names_that_nothing_has(tiny_onnx: Path, samples: list[dict[str, Any]]) -> None:
    with pytest.raises(compiler.QdqcError, match="unknown mode 'int9'; did you mean 'INT8'"):
        compiler.quantize(tiny_onnx, samples, mode="int9")
    with pytest.raises(compiler.QdqcError, match="unknown target"):
        compiler.quantize(tiny_onnx, samples, target="ort-gpu")


def test_no_data(tiny_onnx: Path) -> None:
    with pytest.raises(compiler.QdqcError, match="no calibration data"):
        compiler.quantize(tiny_onnx, [])


def test_a_model_that_is_quantized_already_keeps_its_scales(
    tiny_onnx: Path, samples: list[dict[str, Any]]
) -> None:
    once = compiler.quantize(tiny_onnx, samples)
    again = compiler.quantize(once.model, samples)
    for sample in samples[:4]:
        first = ran(once.model.SerializeToString(), sample)
        assert ran(again.model.SerializeToString(), sample) == pytest.approx(first, abs=0.05)
    assert again.report["audit"]["integer"] == once.report["audit"]["integer"]
    left = compiler.quantize(once.model, samples, mode="f32")
    assert left.report["audit"]["integer"] == once.report["audit"]["integer"]
