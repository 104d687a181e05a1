"""Doubts about the samples and their preprocessing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import qdqc
from qdqc.inspection.inputs import Spread, input_doubts, spread_of
from qdqc.inspection.measure import Figures
from qdqc.inspection.pairs import pairs_of
from qdqc.ir.graph import Module

TEXT = """module @m {{opsets = {{"" = 17}}}} {{
  graph (%x : f32[1,3,8,8]{attrs}) -> (%y) {{
    %y = relu(%x) : f32[1,3,8,8] loc("/y")
  }}
}}"""


def module(attrs: str = "") -> Module:
    return qdqc.from_text(TEXT.format(attrs=f" {{{attrs}}}" if attrs else ""))


def figures(low: float, high: float, mean: float, std: float) -> list[Figures]:
    return [
        Figures(p, low=low, high=high, mean=mean, std=std) for p in pairs_of(module(), module())
    ]


def test_spread_of_finite_numbers() -> None:
    x = np.array([1.0, 3.0, np.nan, np.inf], np.float32)
    assert spread_of(x) == Spread(1.0, 3.0, 2.0, 1.0)
    assert spread_of(np.array(["a"])) is None
    assert spread_of(np.array([np.nan])) is None


@pytest.mark.parametrize(
    ("seen", "known", "doubtful"),
    [
        ((-1, 1, 0, 0.5), (-1, 1, 0.3, 0.4), False),
        ((-1, 1, -0.5, 0.2), (-1, 1, 0.2, 0.7), False),  # a dark photo
        ((0, 255, 120, 60), (-1, 1, 0, 0.5), True),
        ((0, 1.99, 1, 0.5), (-1, 1, 0, 0.5), True),  # the mean was forgotten
        ((0, 1, 0.5, 0.1), (-2, 2, 0, 1), True),
        ((3, 3, 3, 0), (3, 3, 3, 0), False),
    ],
)
def test_against_a_run_that_is_right(seen: Any, known: Any, doubtful: bool) -> None:
    found = input_doubts(figures(*seen), module(), module(), {"x": Spread(*known)})
    assert [d.name for d in found] == (["x"] if doubtful else [])


def test_a_value_stands_for_an_input_that_was_not_kept() -> None:
    (found,) = input_doubts(
        figures(0, 255, 99, 70), module(), module(), {"y": Spread(0, 1, 0.4, 0.3)}
    )
    assert found.name == "y"
    assert "value 'y' lies in 0 to 255" in found.text


def test_two_statements_that_differ() -> None:
    one = 'mean = [1, 2, 3], pixel_format = "rgb"'
    (found,) = input_doubts([], module(one), module(one.replace("rgb", "bgr")), None)
    assert "pixel_format rgb against bgr" in found.text
    assert not input_doubts([], module(one), module(one), None)
    assert not input_doubts([], module(one), module(), None)


@pytest.mark.parametrize(
    ("mean", "scale", "told"),
    [
        ("0.0078125", "127.5", "mean and scale look swapped"),
        ("0", "100", "no network is trained on"),
        ("127.5", "0.0078125", None),
        ("0", "1", None),
        ("103.94", "0.017", None),
    ],
)
def test_numbers_that_no_network_takes(mean: str, scale: str, told: str | None) -> None:
    attrs = f"mean = [{', '.join([mean] * 3)}], scale = [{', '.join([scale] * 3)}]"
    found = input_doubts([], module(), module(f'{attrs}, pixel_format = "rgb"'), None)
    assert [told in d.text for d in found] == ([True] if told else [])
