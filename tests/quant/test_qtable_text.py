"""What is written as a qtable reads back as the same plan."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdqc.quant.qtable import parse_qtable
from qdqc.quant.qtable_text import print_qtable

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1)


@given(st.dictionaries(NAMES, st.sampled_from(["F32", "W8", "DYN8"]), max_size=5))
def test_names_of_any_kind_come_back(modes: dict[str, str]) -> None:
    lines = parse_qtable(print_qtable(modes, {"model": "a\nb"}), "q")
    assert {line.pattern: line.mode for line in lines} == modes


@pytest.mark.parametrize("name", ["a b", "#a", '"a"', "a #b", "re:x", "type:conv", "a?"])
def test_odd_names_stand_on_one_line(name: str) -> None:
    (line,) = parse_qtable(print_qtable({name: "F32"}), "q")
    assert line.pattern == name
