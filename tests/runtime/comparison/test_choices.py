"""What follows from a choice, in small graphs, and how a check judges it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import qdqc
from qdqc.ir.graph import Module
from qdqc.runtime.comparison.check import check_against
from qdqc.runtime.comparison.choices import choices, judged_values
from qdqc.runtime.sessions.session import Runner
from qdqc.search.strategies.threshold import search_threshold
from qdqc.search.trials.mixed_models import MixedModels

RNG = np.random.default_rng(0)
F, I64 = TensorProto.FLOAT, TensorProto.INT64


def network(nodes: list[Any], outputs: dict[str, int], x: list[int], **constants: Any) -> Module:
    infos = [helper.make_tensor_value_info(n, kind, None) for n, kind in outputs.items()]
    inputs = [helper.make_tensor_value_info("x", F, x)]
    held = [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()]
    graph = helper.make_graph(nodes, "g", inputs, infos, held)
    opsets = [helper.make_opsetid("", 17)]
    return qdqc.import_onnx(helper.make_model(graph, opset_imports=opsets, ir_version=8))


def node(op: str, inputs: list[str], outputs: list[str], **attributes: Any) -> Any:
    return helper.make_node(op, inputs, outputs, **attributes)


def weight(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32) / 4


def detector(scale: float = 1.0) -> Module:
    return network(
        [
            node("MatMul", ["x", "w"], ["m"]),
            node("Sigmoid", ["m"], ["s"]),
            node("Split", ["s", "parts"], ["boxes", "k"], axis=2),
            node("Transpose", ["k"], ["scores"], perm=[0, 2, 1]),
            node("NonMaxSuppression", ["boxes", "scores", "n", "iou", "least"], ["selected"]),
            node("Gather", ["selected", "two"], ["rows"], axis=1),
        ],
        {"boxes": F, "scores": F, "selected": I64, "rows": I64},
        [1, 30, 6],
        w=np.random.default_rng(1).standard_normal((6, 8)).astype(np.float32) * scale,
        parts=np.array([4, 4]),
        n=np.array([20]),
        iou=np.array([0.5], np.float32),
        least=np.array([0.6], np.float32),
        two=np.array(2),
    )


def test_what_a_suppression_leaves_is_chosen_by_boxes_and_scores() -> None:
    found = choices(detector())
    assert found.chosen == {"selected", "rows"}
    assert set(found.numbers) == {"boxes", "scores"}
    assert "selected" in found.sets


def test_a_detector_is_judged_by_boxes_and_scores() -> None:
    samples = [{"x": RNG.standard_normal((1, 30, 6)).astype(np.float32)} for _ in range(4)]
    near, _ = check_against(detector(1.01), detector(), samples, (0.9, 0.8), every_value=False)
    rows = {r.name: r for r in near.rows}
    assert near.passed
    assert rows["selected"].share_equal < 1, "the case is of no use"
    assert not rows["selected"].judged
    assert rows["boxes"].judged
    far, _ = check_against(detector(-1.0), detector(), samples, (0.9, 0.8), every_value=False)
    assert not far.passed


def test_a_label_is_judged_by_the_scores_it_is_the_best_of() -> None:
    def classifier(scale: float) -> Module:
        nodes = [node("MatMul", ["x", "w"], ["m"]), node("ArgMax", ["m"], ["y"], axis=1)]
        w = np.random.default_rng(2).standard_normal((6, 9)).astype(np.float32) * scale
        return network(nodes, {"y": I64}, ["N", 6], w=w)

    samples = [{"x": RNG.standard_normal((5, 6)).astype(np.float32)}]
    same, _ = check_against(classifier(1.0), classifier(1.0), samples, (0.9, 0.8))
    assert [(r.name, r.judged) for r in same.rows] == [("m", True), ("y", False)]
    other, _ = check_against(
        classifier(-1.0), classifier(1.0), samples, (0.9, 0.8), every_value=False
    )
    assert not other.passed


@pytest.mark.parametrize(
    ("nodes", "chosen"),
    [
        ([node("TopK", ["x", "k"], ["y", "i"])], {"i"}),
        ([node("TopK", ["x", "k"], ["v", "i"]), node("GatherElements", ["x", "i"], ["y"], axis=1)],
         {"i", "y"}),
        ([node("TopK", ["x", "k"], ["v", "i"]), node("Cast", ["i"], ["f"], to=F),
          node("MatMul", ["f", "w"], ["y"])], {"i", "f"}),
        ([node("Greater", ["x", "zero"], ["g"]), node("Where", ["g", "x", "zero"], ["y"])], {"g"}),
        ([node("Relu", ["x"], ["y"])], set()),
    ],
)  # fmt: skip
def test_choices_end_at_products_and_masks(nodes: list[Any], chosen: set[str]) -> None:
    module = network(nodes, {"y": F}, [2, 6], k=np.array([3]), w=weight(3, 4), zero=np.float32(0))
    assert choices(module).chosen == chosen


def kept_boxes() -> Module:
    """Boxes that a suppression leaves are all that the model gives."""
    module = network(
        [
            node("MatMul", ["x", "w"], ["m"]),
            node("Sigmoid", ["m"], ["s"]),
            node("Split", ["s", "parts"], ["boxes", "k"], axis=2),
            node("Transpose", ["k"], ["scores"], perm=[0, 2, 1]),
            node("NonMaxSuppression", ["boxes", "scores", "n", "iou", "least"], ["selected"]),
            node("Gather", ["selected", "two"], ["rows"], axis=1),
            node("Gather", ["boxes", "rows"], ["left"], axis=1),
        ],
        {"left": F},
        [1, 60, 6],
        w=np.random.default_rng(1).standard_normal((6, 8)).astype(np.float32),
        parts=np.array([4, 4]),
        n=np.array([60]),
        iou=np.array([0.5], np.float32),
        least=np.array([0.7], np.float32),
        two=np.array(2),
    )
    return qdqc.run(module, "@transform")


def test_a_search_judges_what_decides_where_outputs_have_other_shapes() -> None:
    """INT8 leaves another number of boxes: no crash, and scores of boxes and scores."""
    module = kept_boxes()
    assert set(judged_values(module)) == {"boxes", "scores"}
    rng = np.random.default_rng(7)
    samples = [{"x": rng.standard_normal((1, 60, 6)).astype(np.float32)} for _ in range(6)]
    int8 = qdqc.quantize(module, samples)
    left = [[Runner(m).run(s)["left"].shape for s in samples] for m in (module, int8.module)]
    assert left[0] != left[1], "the case is one where shapes differ"
    result = qdqc.search_layers(module, samples, expected_cos=0.5, exact=True)
    runs = [[Runner(m, ["boxes", "scores"]).run(s) for s in samples] for m in (module, int8.module)]
    cosines = [
        np.vdot(a[n], b[n]) / np.linalg.norm(a[n]) / np.linalg.norm(b[n])
        for a, b in zip(*runs, strict=True)
        for n in ("boxes", "scores")
    ]
    assert result.int8 == pytest.approx(np.mean(cosines), abs=1e-6)
    assert int8.table is not None
    tables = {"one": int8.table, "two": int8.table}
    scores = search_threshold(MixedModels(module), tables, samples).scores
    assert all(np.isfinite(s.sqnr) and s.cos > 0.99 for s in scores.values())
