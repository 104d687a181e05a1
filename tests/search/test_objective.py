"""Scores against their formulas."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.diagnostics import QdqcError
from compiler.search.objective import Likeness, Metric

RNG = np.random.default_rng(0)
EXACT = [{"a": RNG.normal(size=(1, 5)), "b": RNG.normal(size=(1, 3))} for _ in range(4)]
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
