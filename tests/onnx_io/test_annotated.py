"""Models to be looked at: they hold their notes, and run as the module does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import qdqc
from qdqc.inspection.stages import quantized_stage
from qdqc.ir.graph import Module
from qdqc.onnx_io.annotated import annotated_model
from qdqc.quant.lowered import lowered_of

TEXT = """module @m {opsets = {"" = 13}, pipeline = "p", target = "ort-cpu"} {
  const %w : i8[4,3,1,1] q(axis = 0, scale = [0.5, 1, 1, 2]) = dense[1,2,3,4,5,6,7,8,9,1,1,2]
  graph (%x : f32[1,3,2,2]) -> (%y) {
    %q = quantize(%x) : u8[1,3,2,2] q(scale = 0.5, zero_point = 3)
    %c = conv(%q, %w) : u8[1,4,2,2] q(scale = 0.25) loc("/c")
    %y = sigmoid(%c) : f32[1,4,2,2] loc("/y")
  }
}"""


DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"


def lowered(module: Module) -> Module:
    return qdqc.run(module, "lower-to-qdq")


def annotated(module: Module, notes: dict[str, dict[str, str]]) -> onnx.ModelProto:
    return annotated_model(module, notes, lowered_of(module).value_of)


def notes_of(entry: Any) -> dict[str, str]:
    return {p.key: p.value for p in entry.metadata_props}


def test_notes_stand_at_the_node_and_at_its_values() -> None:
    module = lowered(qdqc.from_text(TEXT))
    given = qdqc.to_text(module)
    model = annotated(module, {"c": {"scale": "0.25"}, "x": {"range": "a </b>"}, "gone": {}})
    onnx.checker.check_model(model, full_check=True)
    conv = next(n for n in model.graph.node if n.op_type == "Conv")
    assert list(conv.output) == ["c_f"], "the op's own result before it is quantized"
    assert notes_of(conv) == {"qdqc.scale": "0.25"}
    infos = {i.name: notes_of(i) for i in model.graph.value_info}
    assert {n for n, held in infos.items() if held} == {"c_f", "c_q", "c"}
    assert notes_of(model.graph.input[0]) == {"qdqc.range": "a </b>"}
    assert notes_of(model) == {"qdqc.pipeline": "p,lower-to-qdq", "qdqc.target": "ort-cpu"}
    assert qdqc.to_text(module) == given, "left alone"


def test_a_value_that_is_named_like_a_role_keeps_its_own_notes() -> None:
    text = TEXT.replace("%c ", "%c_q ").replace("(%c)", "(%c_q)")
    model = annotated(lowered(qdqc.from_text(text)), {"c_q": {"a": "1"}, "c": {"a": "2"}})
    conv = next(n for n in model.graph.node if n.op_type == "Conv")
    assert notes_of(conv) == {"qdqc.a": "1"}


@pytest.mark.parametrize("name", ["digits.qir", "digits_int8.qir", "digits_int8.onnx"])
def test_it_runs_as_the_file_does(digits: Path, name: str) -> None:
    module = quantized_stage(digits / name)
    model = annotated(lowered(module), {n.name: {"k": "v"} for n in module.graph.nodes()})
    assert model.ir_version >= 10
    image = np.random.default_rng(0).uniform(-1, 1, (2, 1, 32, 32)).astype(np.float32)
    plain = DIGITS / "digits.onnx" if name == "digits.qir" else digits / "digits_int8.onnx"
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    found, wanted = (
        ort.InferenceSession(m, options).run(None, {"image": image})[0]
        for m in (model.SerializeToString(), plain)
    )
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())
