"""Traps of QDQ models on the onnxruntime that is installed: naive forms fall in, ours do not."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from naive_qdq import TRAPS
from ort_versions import observed, predicted, write_models

import qdqc
from qdqc.runtime.audit.fusions import bad_fusions

NEWEST = (1, 31)
STAYS_FLOAT = {"Gemm, alpha 2"}
SILENT = {
    "Conv, dead channel with a large bias",
    "Conv, dead weights with a large bias, per tensor",
    "Gemm, wrong axis",
}
RELEASE = tuple(int(n) for n in ort.__version__.split(".")[:2])


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], str]:
    folder = tmp_path_factory.mktemp("traps") / "models"
    write_models(folder)
    return observed(sys.executable, folder)[1]


@pytest.mark.parametrize("name", TRAPS)
def test_what_this_project_lays_is_right_and_integer(
    name: str, seen: dict[tuple[str, str], str]
) -> None:
    assert seen["ours", name] == ("float" if name in STAYS_FLOAT else "integer")


@pytest.mark.parametrize("name", TRAPS)
def test_the_naive_form_runs_as_the_rules_predict(
    name: str, seen: dict[tuple[str, str], str]
) -> None:
    assert predicted(name, (RELEASE[0], RELEASE[1])) == seen["naive", name]


@pytest.mark.skipif(RELEASE < NEWEST, reason="what was measured on newer releases")
def test_the_traps_are_traps(seen: dict[tuple[str, str], str]) -> None:
    naive = {name: seen["naive", name] for name in TRAPS}
    assert {name for name, found in naive.items() if found == "wrong"} == SILENT
    assert sum(found != "integer" for found in naive.values()) >= 9


@pytest.mark.parametrize("name", sorted(SILENT))
def test_what_is_silently_wrong_is_told(name: str, tmp_path: Path) -> None:
    trap, path = TRAPS[name](), tmp_path / "m.onnx"
    onnx.save(trap.naive, path)
    assert bad_fusions(path, {"x": trap.x})


def test_the_proof_of_a_foreign_model_names_the_rule(tmp_path: Path) -> None:
    wanted = {
        "Gemm, float bias, classifier": ("float", "bias-type"),
        "MatMul + float bias, static, no Q": ("float", "matmul-bias"),
        "Conv, one wrong bias scale": ("float", "bias-scale"),
    }
    for name, (runs, rule) in wanted.items():
        path = tmp_path / "m.onnx"
        onnx.save(TRAPS[name]().naive, path)
        rows = [r for r in qdqc.prove(path).rows if r.is_product]
        assert [r.runs for r in rows] == [runs], name
        assert rows[0].rule == rule, name
        assert rule in rows[0].reason, name


def test_resize_gets_no_casts() -> None:
    """Integers before a cubic Resize crashed onnxruntime up to 1.23."""
    make = onnx.helper.make_node
    rng = np.random.default_rng(0)
    held = {
        "w": rng.normal(0, 1, (4, 4, 3, 3)).astype(np.float32),
        "scales": np.array([1, 1, 2, 2], np.float32),
    }
    nodes = [
        make("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
        make("Resize", ["a", "", "scales"], ["b"], mode="cubic"),
        make("Conv", ["b", "w"], ["y"], pads=[1, 1, 1, 1]),
    ]
    ends = [
        onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1, 4, s, s])
        for n, s in (("x", 8), ("y", 16))
    ]
    tensors = [onnx.numpy_helper.from_array(a, n) for n, a in held.items()]
    graph = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9
    )
    data = [{"x": rng.normal(0, 1, (1, 4, 8, 8)).astype(np.float32)} for _ in range(4)]
    made = qdqc.quantize(model, data)
    assert made.report.entries()["audit"]["integer"] == 2
    makers = {o: n.op_type for n in made.model.graph.node for o in n.output}
    resize = next(n for n in made.model.graph.node if n.op_type == "Resize")
    readers = [n.op_type for n in made.model.graph.node if resize.output[0] in n.input]
    assert makers[resize.input[0]] == "DequantizeLinear"
    assert readers == ["QuantizeLinear"]
    assert made.report.outputs["y"].cos > 0.999
