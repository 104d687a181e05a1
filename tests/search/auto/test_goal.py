"""What models are ordered by, as it is asked."""

from __future__ import annotations

import math

import pytest

from qdqc.diagnostics import QdqcError
from qdqc.search.auto.goal import BALANCED, Drop, Latency, Near, goal_of
from qdqc.search.auto.judge import Quality


def of(sqnr: float, score: float | None = None) -> Quality:
    return Quality(sqnr, sqnr if score is None else score, sqnr)


def test_goals_are_read_as_they_are_written() -> None:
    assert goal_of("", math.inf) is BALANCED
    assert goal_of("25dB", math.inf) == Near(25.0)
    assert goal_of(" 1.5 ms ", math.inf) == Latency(0.0015)
    assert goal_of("0.01", 0.9) == Drop(0.01, 0.9)


@pytest.mark.parametrize("text", ["fast", "25 watts", "-3dB", "1e3ms"])
def test_what_is_no_goal_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(QdqcError, match="is no goal"):
        goal_of(text, 0.5)


def test_a_drop_wants_a_metric() -> None:
    with pytest.raises(QdqcError, match="none is given"):
        goal_of("0.01", math.inf)


def test_no_model_slower_than_float_is_worth_more_than_float() -> None:
    exact = BALANCED.worth(of(math.inf), 1.0, 1.0)
    assert BALANCED.worth(of(100.0), 1.2, 1.0) > exact
    assert BALANCED.worth(of(35.0), 0.5, 1.0) < exact
    assert BALANCED.worth(of(5.0), 0.5, 1.0) > exact  # twice as fast, and lost


def test_at_one_speed_the_nearer_model_wins_and_a_decibel_has_its_price() -> None:
    near, far = (BALANCED.worth(of(s), 0.5, 1.0) for s in (30.0, 29.0))
    assert near < far
    assert far[1] - near[1] == pytest.approx(0.04)


def test_a_stated_goal_is_met_by_the_fastest_model_that_has_it() -> None:
    goal = Near(25.0)
    ways = ((40, 0.9), (25, 0.5), (24, 0.1))
    slow, fast, short = (goal.worth(of(sqnr), seconds, 1) for sqnr, seconds in ways)
    assert fast < slow < short
    assert goal.worth(of(24), 9.0, 1) < goal.worth(of(20), 0.1, 1)  # none has it: the nearest


def test_a_drop_is_counted_from_the_float_models_metric() -> None:
    goal = Drop(0.01, 0.9)
    assert goal.worth(of(10, 0.895), 0.5, 1)[0] == 0
    assert goal.worth(of(60, 0.88), 0.5, 1)[0] == 1


def test_within_a_latency_the_best_score_wins() -> None:
    goal = Latency(0.5)
    assert goal.worth(of(20), 0.4, 1) > goal.worth(of(30), 0.5, 1)
    assert goal.worth(of(90), 0.6, 1) > goal.worth(of(1), 0.5, 1)
