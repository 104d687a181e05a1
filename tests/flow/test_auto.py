"""The best model in one call: what it reports is what the model does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from small_models import f32, model, start_over

import qdqc
from qdqc.diagnostics import QdqcError
from qdqc.flow.auto import AutoRequest, plan_auto
from qdqc.flow.deploy import deploy
from qdqc.flow.effort import Effort
from qdqc.flow.listener import Listener
from qdqc.flow.samples import DataSource
from qdqc.flow.transform import transform
from qdqc.onnx_io.exporter import export_onnx


def conv_model() -> ModelProto:
    """Two convolutions, the same ones at every call."""
    start_over(5)
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Conv", ["r", "w2"], ["y"]),
    ]
    weights = {"w1": f32(16, 3, 3, 3, scale=0.2), "w2": f32(8, 16, 1, 1, scale=0.3)}
    return model(nodes, {"x": [1, 3, 16, 16]}, weights)


def samples_of(count: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(3)
    return [{"x": rng.normal(0, 1, (1, 3, 16, 16)).astype(np.float32)} for _ in range(count)]


def test_the_plan_says_what_the_model_has() -> None:
    data = samples_of(20)
    made = qdqc.quantize(conv_model(), data, mode="auto")
    plan = made.report.plan
    assert plan is not None
    judged = [data[n] for n in range(4, 20, 5)]
    assert all(a["x"] is not None for a in plan.held_back)
    assert [a["x"].tobytes() for a in plan.held_back] == [s["x"].tobytes() for s in judged]
    ours = ort.InferenceSession(made.model.SerializeToString())
    exact = ort.InferenceSession(conv_model().SerializeToString())
    noise = signal = 0.0
    for sample in judged:
        a, b = ours.run(None, sample)[0], exact.run(None, sample)[0]
        noise += float(np.square(a.astype(float) - b).sum())
        signal += float(np.square(b.astype(float)).sum())
    if noise:
        assert plan.chosen.quality.sqnr == pytest.approx(10 * np.log10(signal / noise), abs=0.05)
    else:
        assert plan.chosen.is_float
    json.dumps(made.report.entries()["auto"])
    assert "chosen" in str(made)


def test_findings_are_taken_up_and_lead_to_the_same_model(tmp_path: Path) -> None:
    module = transform(conv_model()).module
    notes: list[str] = []

    def planned() -> Any:
        effort = Effort(threads=1, cache=tmp_path, keeps=True)
        request = AutoRequest(source=DataSource(dataset=samples_of(10)), effort=effort)
        return plan_auto(module, request, listener=Listener(note=notes.append))

    first, second = planned(), planned()
    assert any("findings of an earlier run" in note for note in notes)
    assert first.chosen.modes == second.chosen.modes
    assert [c.seconds for c in first.tried] == [c.seconds for c in second.tried]
    models = [
        export_onnx(deploy(p.module, p.deployment, table=p.table, qtable=p.qtable).module)
        for p in (first, second)
    ]
    assert models[0].SerializeToString() == models[1].SerializeToString()


def test_labels_want_a_metric() -> None:
    with pytest.raises(QdqcError, match="labels"):
        qdqc.quantize(conv_model(), samples_of(5), mode="auto", labels=[1] * 5)


def test_a_metric_judges_with_the_labels_of_the_samples_held_back() -> None:
    seen: list[Any] = []

    def metric(outputs: Any, labels: Any) -> float:
        seen.append(list(labels))
        return 1.0

    made = qdqc.quantize(
        conv_model(), samples_of(10), mode="auto", metric=metric, labels=list(range(10)), goal="0.1"
    )
    assert made.report.plan is not None
    assert all(labels == [4, 9] for labels in seen)


def test_too_few_labels_are_told() -> None:
    given: dict[str, Any] = {"metric": lambda outputs, labels: 1.0, "goal": "0.1"}
    with pytest.raises(QdqcError, match="there are 3 labels, and sample 10"):
        qdqc.quantize(conv_model(), samples_of(10), mode="auto", labels=[1, 2, 3], **given)


@pytest.mark.parametrize("count", [2, 4, 12])
def test_samples_of_unknown_number_are_split_alike(count: int, tmp_path: Path) -> None:
    """A Python file does not say how many samples it gives."""
    script = tmp_path / "data.py"
    script.write_text(
        "import numpy as np\n"
        "def dataset():\n"
        f"    for n in range({count}):\n"
        "        yield {'x': np.full((1, 3, 16, 16), n, np.float32)}\n"
    )
    plan = qdqc.quantize(conv_model(), script, mode="auto").report.plan
    assert plan is not None
    judged = [count - 1] if count < 5 else [4, 9]
    assert [int(s["x"].flat[0]) for s in plan.held_back] == judged


def test_a_model_that_is_quantized_is_refused() -> None:
    quantized = qdqc.quantize(conv_model(), samples_of(5), leave_float=False).model
    with pytest.raises(QdqcError, match="this is quantized"):
        qdqc.quantize(quantized, samples_of(5), mode="auto")


def test_equal_outputs_are_no_sign_of_a_float_model() -> None:
    """Integers give the very same zeros: what is deployed is what was chosen."""
    zero = conv_model()
    zero.graph.node.append(helper.make_node("Mul", ["y", "none"], ["z"]))
    zero.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "none"))
    zero.graph.output[0].name = "z"
    plan = qdqc.quantize(zero, samples_of(10), mode="auto", goal="20dB").report.plan
    assert plan is not None
    assert any(not c.is_float for c in plan.tried if not c.modes)
    assert plan.deployment.mode == ("F32" if plan.chosen.is_float else "INT8")


def test_one_sample_is_told(tmp_path: Path) -> None:
    notes: list[str] = []
    qdqc.quantize(conv_model(), samples_of(1), mode="auto", listener=Listener(note=notes.append))
    assert any("one sample" in note for note in notes)


def test_a_model_without_float_outputs_has_nothing_to_judge_by() -> None:
    graph = helper.make_graph(
        [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.INT64)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, [1, 4])],
    )
    cast = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(QdqcError, match="no float outputs"):
        qdqc.quantize(cast, [{"x": np.ones((1, 4), np.float32)}] * 4, mode="auto")
