"""The search in one call, held against deployed models that onnxruntime runs."""

from __future__ import annotations

import tempfile
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import qdqc
from qdqc.data.archive import Archive

Samples = list[dict[str, Any]]


@pytest.fixture(scope="module")
def samples(tiny_data: Path) -> Samples:
    held = dict(Archive(tiny_data))
    return [{n: a[i : i + 1] for n, a in held.items()} for i in range(16)]


def outputs(model: Any, samples: Samples) -> list[Any]:
    data = model if isinstance(model, str) else model.SerializeToString()
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    return [session.run(None, s)[0].ravel().astype(np.float64) for s in samples]


def likeness(model: Any, exact: Any, samples: Samples) -> float:
    """The mean cosine of the outputs, in numpy."""
    pairs = zip(outputs(model, samples), outputs(exact, samples), strict=True)
    return float(np.mean([a @ b / np.sqrt((a @ a) * (b @ b)) for a, b in pairs]))


def test_the_score_is_that_of_the_model_that_quantize_gives(
    tiny_onnx: Path, samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = qdqc.search_layers(str(tiny_onnx), iter(samples), expected_cos=0.999994)
    assert not list(tmp_path.iterdir()), "no file is left behind"
    assert list(found.losses.values()) == sorted(found.losses.values(), reverse=True)
    assert set(found.qtable) <= set(found.losses)
    assert found.qtable, "INT8 alone is not good enough"
    assert found.reached
    for qtable, score in (({}, found.int8), (found.qtable, found.score)):
        model = qdqc.quantize(str(tiny_onnx), samples, qtable=qtable).model
        assert likeness(model, str(tiny_onnx), samples) == pytest.approx(score, abs=1e-9)


def test_no_smaller_set_reaches_the_goal(tiny_onnx: Path, samples: Samples) -> None:
    """Against all smaller sets, each deployed by quantize."""
    found = qdqc.search_layers(str(tiny_onnx), samples, expected_cos=0.999994)
    least = len(found.qtable)
    for chosen in combinations(found.losses, least - 1):
        model = qdqc.quantize(str(tiny_onnx), samples, qtable=dict.fromkeys(chosen, "F32")).model
        assert likeness(model, str(tiny_onnx), samples) < found.goal


@pytest.mark.parametrize(("exact", "symmetric"), [(True, False), (False, True)])
def test_a_good_model_needs_nothing_float(
    tiny_onnx: Path, tiny_data: Path, exact: bool, symmetric: bool
) -> None:
    model = onnx.load(tiny_onnx)
    found = qdqc.search_layers(
        model, tiny_data, expected_cos=0.5, exact=exact, symmetric=symmetric, inference_num=5
    )
    assert found.qtable == {}
    assert found.score == found.int8 > found.goal == 0.5


def test_a_metric_may_fall_by_so_much(tiny_onnx: Path, samples: Samples) -> None:
    labels = [int(o.argmax()) for o in outputs(str(tiny_onnx), samples)]
    labels[0] = (labels[0] + 1) % 4

    def top1(found: Any, truth: Any) -> float:
        return float((found["y"].argmax(1) == np.asarray(truth)).mean())

    found = qdqc.search_layers(
        str(tiny_onnx), samples, metric=top1, labels=labels, max_drop=0.5, inference_num=16
    )
    assert found.goal == pytest.approx(15 / 16 - 0.5)
    assert round(found.int8 * 16) == pytest.approx(found.int8 * 16)
    assert found.reached


def test_a_goal_out_of_reach_is_told(tiny_onnx: Path, samples: Samples) -> None:
    found = qdqc.search_layers(str(tiny_onnx), samples, expected_cos=1.5, inference_num=4)
    assert not found.reached
    assert found.score == pytest.approx(1.0, abs=1e-6), "the best that was verified: all float"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"labels": [1]}, "`labels` are for a metric"),
        ({"metric": lambda o, n: 1.0, "labels": [1, 2]}, "2 labels for 16 samples"),
        ({"metric": lambda o, n: float("nan")}, "no finite number"),
        ({"inference_num": 0}, "no samples to search on"),
        ({"target": "ort-cpo"}, "did you mean 'ort-cpu'"),
        ({"method": "klm"}, "klm"),
    ],
)
def test_what_does_not_fit_is_said(
    tiny_onnx: Path, samples: Samples, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(qdqc.QdqcError, match=message):
        qdqc.search_layers(str(tiny_onnx), samples, **given)
