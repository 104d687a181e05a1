"""The whole flow in one call."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import qdqc
from qdqc.data.archive import Archive


@pytest.fixture
def samples(tiny_data: Path) -> list[dict[str, Any]]:
    held = dict(Archive(tiny_data))
    count = len(next(iter(held.values())))
    return [{n: a[i : i + 1] for n, a in held.items()} for i in range(count)]


def ran(model: Any, feeds: dict[str, Any]) -> Any:
    return ort.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, feeds)[0]


def integers(result: qdqc.Quantized) -> int:
    return len(result.report.audit.products("integer"))


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
    result = qdqc.quantize(str(tiny_onnx), iter(samples), mode=mode)
    assert not list(tmp_path.iterdir()), "no file is left behind"
    onnx.checker.check_model(result.model, full_check=True)
    entries = result.report.entries()
    assert set(entries) == {"source", "outputs", "audit", "bytes", "bad_fusions"}
    json.dumps(entries, allow_nan=False)
    assert list(result.report.proof.bad_fusions) == []
    similar = result.report.outputs["y"]
    cosines = []
    for sample in samples[:4]:
        exact = ran(str(tiny_onnx), sample)
        found = ran(result.model.SerializeToString(), sample)
        cosines.append((exact * found).sum() / np.linalg.norm(exact) / np.linalg.norm(found))
    assert similar.cos == pytest.approx(np.mean(cosines), abs=1e-4)
    assert similar.cos > 0.97
    assert integers(result) == (4 if mode in ("int8", "DYN8") else 0)
    assert result.report.proof.bytes["deployed"] == result.model.ByteSize()


def test_a_model_in_memory_and_data_in_a_file(tiny_onnx: Path, tiny_data: Path) -> None:
    result = qdqc.quantize(onnx.load(tiny_onnx), tiny_data)
    assert result.report.outputs["y"].cos > 0.99


def test_a_qtable_in_memory_and_integers_at_the_ends(
    tiny_onnx: Path, samples: list[dict[str, Any]]
) -> None:
    whole = qdqc.quantize(tiny_onnx, samples)
    conv = next(r["name"] for r in whole.report.entries()["audit"]["ops"] if r["op"] == "conv")
    mixed = qdqc.quantize(
        tiny_onnx, samples, qtable={conv: "F32"}, quant_input=True, quant_output=True
    )
    assert integers(mixed) == integers(whole) - 1
    assert mixed.model.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    with pytest.raises(qdqc.QdqcError, match="matches no node"):
        qdqc.quantize(tiny_onnx, samples, qtable={"nothing": "F32"})


def test_names_that_nothing_has(tiny_onnx: Path, samples: list[dict[str, Any]]) -> None:
    with pytest.raises(qdqc.QdqcError, match="unknown mode 'int9'; did you mean 'INT8'"):
        qdqc.quantize(tiny_onnx, samples, mode="int9")
    with pytest.raises(qdqc.QdqcError, match="unknown target"):
        qdqc.quantize(tiny_onnx, samples, target="ort-gpu")


def test_no_data(tiny_onnx: Path) -> None:
    with pytest.raises(qdqc.QdqcError, match="no calibration data"):
        qdqc.quantize(tiny_onnx, [])


def test_a_model_that_is_quantized_already_keeps_its_scales(
    tiny_onnx: Path, samples: list[dict[str, Any]]
) -> None:
    once = qdqc.quantize(tiny_onnx, samples)
    again = qdqc.quantize(once.model, samples)
    for sample in samples[:4]:
        first = ran(once.model.SerializeToString(), sample)
        assert ran(again.model.SerializeToString(), sample) == pytest.approx(first, abs=0.05)
    assert integers(again) == integers(once)
    left = qdqc.quantize(once.model, samples, mode="f32")
    assert integers(left) == integers(once)


@pytest.mark.parametrize("recipe", ["fast", "balanced", "best"])
def test_a_recipe_tunes_the_weights_and_tells_what_each_step_gained(
    tiny_onnx: Path, samples: list[dict[str, Any]], recipe: str
) -> None:
    plain = qdqc.quantize(tiny_onnx, samples)
    tuned = qdqc.quantize(tiny_onnx, samples, recipe=recipe)
    assert plain.report.recipe == ()
    steps = tuned.report.recipe
    assert [s.pipeline.partition("{")[0] for s in steps] == {
        "fast": ["round-weights"],
        "balanced": ["equalize-activations", "smooth-activations", "round-weights"],
        "best": [
            "equalize-activations",
            "equalize-channels",
            "smooth-activations",
            "round-weights",
        ],
    }[recipe]
    assert integers(tuned) == integers(plain)
    assert noise(tuned.model, tiny_onnx, samples) < 1.05 * noise(plain.model, tiny_onnx, samples)
    held = {i.name for i in tuned.model.graph.initializer}
    assert any("_i8" in name for name in held) is steps[-1].kept


def noise(model: Any, exact: Path, samples: list[dict[str, Any]]) -> float:
    """The squared error of the outputs over all samples, by sessions of their own."""
    found = [ran(model.SerializeToString(), s) - ran(str(exact), s) for s in samples]
    return float(np.square(found).sum())


def test_a_recipe_and_what_it_has_no_use_for(
    tiny_onnx: Path, samples: list[dict[str, Any]]
) -> None:
    with pytest.raises(qdqc.QdqcError, match="unknown recipe 'bst'; did you mean 'best'"):
        qdqc.quantize(tiny_onnx, samples, recipe="bst")
    with pytest.raises(qdqc.QdqcError, match="not those of mode W8"):
        qdqc.quantize(tiny_onnx, samples, recipe="best", mode="w8")
    once = qdqc.quantize(tiny_onnx, samples)
    with pytest.raises(qdqc.QdqcError, match="a model that is quantized already"):
        qdqc.quantize(once.model, samples, recipe="best")


def test_padding_under_a_mask_has_no_part_in_ranges(tmp_path: Path) -> None:
    """Without the mask a pad of 1000 widens the range, and all else rounds to few steps."""
    make = onnx.helper.make_tensor_value_info
    weight = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    kinds = onnx.TensorProto
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "w"], ["h"]),
        onnx.helper.make_node("Cast", ["mask"], ["m"], to=kinds.FLOAT),
        onnx.helper.make_node("Unsqueeze", ["m", "two"], ["m3"]),
        onnx.helper.make_node("Mul", ["h", "m3"], ["y"]),
    ]
    inputs = [make("x", kinds.FLOAT, [1, 6, 4]), make("mask", kinds.INT64, [1, 6])]
    held = [
        onnx.numpy_helper.from_array(weight, "w"),
        onnx.numpy_helper.from_array(np.array([2]), "two"),
    ]
    graph = onnx.helper.make_graph(nodes, "m", inputs, [make("y", kinds.FLOAT, [1, 6, 4])], held)
    path = tmp_path / "masked.onnx"
    opsets = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    rng = np.random.default_rng(1)
    samples = [
        {"x": rng.normal(size=(1, 6, 4)).astype(np.float32), "mask": np.array([[1] * 4 + [0] * 2])}
        for _ in range(8)
    ]
    for sample in samples:
        sample["x"][:, 4:] = 1000
    told = {
        mask: qdqc.quantize(path, samples, mask=mask, method="max").report.outputs["y"]
        for mask in ("", "mask")
    }
    assert told["mask"].sqnr > 30 > told[""].sqnr
