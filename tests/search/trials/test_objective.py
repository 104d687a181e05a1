"""Scores against their formulas."""

from __future__ import annotations

import numpy as np
import pytest

from qdqc.diagnostics import QdqcError
from qdqc.search.trials.objective import Likeness, Metric

RNG = np.random.default_rng(0)
EXACT = [{"a": RNG.normal(size=(1, 5)), "b": RNG.normal(size=(1, 4))} for _ in range(4)]
FOUND = [{n: v + 0.1 * RNG.normal(size=v.shape) for n, v in s.items()} for s in EXACT]


def test_cosines_are_weighed() -> None:
    expected = 0.0
    for found, exact in zip(FOUND, EXACT, strict=True):
        for name, weight in (("a", 0.3), ("b", 0.7)):
            x, y = found[name].ravel(), exact[name].ravel()
            expected += weight * float(x @ y / np.sqrt((x @ x) * (y @ y))) / len(EXACT)
    objective = Likeness({"a": 0.3, "b": 0.7})
    assert objective.score(FOUND, EXACT) == pytest.approx(expected, abs=1e-12)
    assert objective.score(EXACT, EXACT) == pytest.approx(1.0)
    assert objective.ideal(EXACT) == 1.0


def test_snr_sees_the_scale_that_a_cosine_does_not() -> None:
    twice = [{n: 2 * v for n, v in s.items()} for s in EXACT]
    assert Likeness({"a": 1.0}).score(twice, EXACT) == pytest.approx(1.0)
    assert Likeness({"a": 1.0}, "snr").score(twice, EXACT) == pytest.approx(0.0, abs=1e-6)


def test_what_is_compared_may_be_made_of_the_outputs() -> None:
    objective = Likeness({"a": 1.0, "b": 0.0}, post_process=lambda s: {"sign": np.sign(s["a"])})
    flipped = [{**s, "a": -s["a"]} for s in EXACT]
    assert objective.score(flipped, EXACT) == pytest.approx(-1.0)


def test_a_metric_sees_all_samples_and_the_labels() -> None:
    labels = np.array([int(s["a"].argmax()) for s in EXACT])
    labels[0] = (labels[0] + 1) % 5

    def top1(outputs: dict[str, np.ndarray], truth: np.ndarray) -> float:
        assert outputs["a"].shape == (len(truth), 5)
        return float((outputs["a"].argmax(1) == truth).mean())

    objective = Metric(("a",), top1, labels)
    assert objective.ideal(EXACT) == 0.75
    assert objective.part([0]).score(EXACT[:1], EXACT[:1]) == 0.0


@pytest.mark.parametrize("value", [None, "much", float("nan"), float("inf")])
def test_a_metric_must_give_a_number(value: object) -> None:
    with pytest.raises(QdqcError, match="no finite number"):
        Metric(("a",), lambda outputs, labels: value).score(FOUND, EXACT)


@pytest.mark.parametrize(
    ("process", "message"),
    [
        (lambda s: {"boxes": s["a"][s["a"] > 0]}, "gives other shapes: .* of INT8 beside .* of f"),
        (lambda s: {str(s["a"][0, 0]): s["a"]}, "gives other shapes"),
        (lambda s: {}, "gives nothing to compare"),
        (lambda s: {"x": s["a"][:, :0]}, "gives nothing to compare"),
        (lambda s: {"name": np.array(["cat"])}, "gives no numbers as 'name'"),
        (lambda s: {"x": s["a"], "o": np.array([None])}, "gives no numbers as 'o'"),
    ],
)
def test_what_a_post_processing_gives_must_compare(process: object, message: str) -> None:
    flipped = [{n: -v for n, v in s.items()} for s in EXACT]
    with pytest.raises(QdqcError, match=message):
        Likeness({"a": 1.0}, post_process=process).score(flipped, EXACT)  # type: ignore[arg-type]


def test_post_processed_values_count_alike_whatever_the_weights() -> None:
    """Against numpy: two values of a sample, one right and one flipped."""
    objective = Likeness(
        {"a": 1.0}, post_process=lambda s: {"right": s["b"], "left": np.abs(s["a"]) * s["a"][0, 0]}
    )
    found = [{"a": np.where(np.arange(5) == 0, -s["a"], s["a"]), "b": s["b"]} for s in EXACT]
    assert objective.score(found, EXACT) == pytest.approx(0.0, abs=1e-12)


def test_a_metric_needs_one_shape_of_all_samples() -> None:
    uneven = [{"a": np.ones((1, n))} for n in (3, 4, 3, 3)]
    with pytest.raises(QdqcError, match=r"shapes differ: \[\(1, 3\), \(1, 4\)\]"):
        Metric(("a",), lambda outputs, labels: 1.0).ideal(uneven)
    reduced = Metric(("a",), lambda o, labels: o["n"].sum(), None, lambda s: {"n": s["a"].sum(1)})
    assert reduced.ideal(uneven) == 13


def test_parts_of_a_metric_keep_their_labels() -> None:
    objective = Metric(("a",), lambda outputs, labels: float(labels.sum()), [1, 20, 300, 4000])
    assert objective.part([3, 1]).ideal(EXACT[:2]) == 4020
    assert objective.part([3, 1]).part([1]).ideal(EXACT[:1]) == 20
    bare = Metric(("a",), lambda outputs, labels: float(labels is None))
    assert bare.part([0]) is bare
    assert bare.ideal(EXACT) == 1.0


def test_losses_of_samples_average_to_that_of_all() -> None:
    objective = Likeness({"a": 0.5, "b": 0.5})
    each = [objective.score([f], [e]) for f, e in zip(FOUND, EXACT, strict=True)]
    assert objective.score(FOUND, EXACT) == pytest.approx(np.mean(each), abs=1e-15)


@pytest.mark.parametrize("kind", ["cos", "snr"])
def test_a_sample_that_is_not_finite_scores_least(kind: str) -> None:
    broken = [{n: v * np.nan for n, v in FOUND[0].items()}, *FOUND[1:]]
    objective = Likeness({"a": 0.5, "b": 0.5}, kind)
    assert objective.score(broken, EXACT) <= -1 < objective.score(FOUND, EXACT)


def test_one_number_is_judged_by_how_it_changes() -> None:
    exact = [{"y": np.array([[1.0 + (k % 5 == 0)]])} for k in range(20)]
    same = [{"y": np.array([[1.0]])} for _ in exact]
    noise, spread = 4.0, 20 * 0.2 * 0.8
    expected = 1 / np.sqrt(1 + noise / spread)
    assert Likeness({"y": 1.0}).score(same, exact) == pytest.approx(expected)


def test_snr_is_that_of_tpu_mlir() -> None:
    """Noise over signal of all elements, taken from 1."""
    noise = signal = 0.0
    for found, exact in zip(FOUND, EXACT, strict=True):
        pairs = list(zip(found["b"][0], exact["b"][0], strict=True))
        noise += sum((float(x) - float(y)) ** 2 for x, y in pairs)
        signal += sum(float(y) ** 2 for _, y in pairs)
    expected = 1 - noise / signal
    found_score = Likeness({"b": 1.0}, "snr").score(FOUND, EXACT)
    assert found_score == pytest.approx(expected, abs=1e-12)
