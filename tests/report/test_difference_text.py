"""The difference as people and programs read it."""

from __future__ import annotations

import json

import pytest

from qdqc.inspection.difference import Change, Detail, Difference
from qdqc.report.difference_text import difference_entries, render_difference


@pytest.fixture
def found() -> Difference:
    changes = (
        Change("~", "module", "m", (Detail("passes", "none", "quantize"),)),
        Change("+", "quantize", "x_q", note="from conv c"),
        Change("-", "relu", "r", note="now part of conv c"),
        Change("~", "conv", "c", (Detail("precision", "f32", "u8"), Detail("weight", "f32", "i8"))),
        Change("~", "conv", "d", (Detail("precision", "f32", "u8"),)),
    )
    return Difference(changes, (9, 10))


def test_each_change_with_its_details_then_the_counts(found: Difference) -> None:
    assert render_difference(found).splitlines() == [
        "~ module m",
        "    passes  none -> quantize",
        "+ quantize x_q",
        "    from conv c",
        "- relu r",
        "    now part of conv c",
        "~ conv c",
        "    precision  f32 -> u8",
        "    weight     f32 -> i8",
        "~ conv d",
        "    precision  f32 -> u8",
        "9 nodes against 10: 1 added, 1 removed, 3 changed",
        "changed in precision 2, passes 1, weight 1",
        "precision f32 -> u8: 2",
    ]


def test_many_changes_and_long_texts_are_cut_short() -> None:
    long = Detail("passes", "none", "pass, " * 40)
    many = Difference(tuple(Change("~", "relu", f"n{i}", (long,)) for i in range(50)), (50, 50))
    lines = render_difference(many).splitlines()
    assert max(map(len, lines)) <= 100
    assert "~ relu n39" in lines
    assert "~ relu n40" not in lines
    assert "and 10 more: -v shows all, --report FILE.json has them" in lines
    assert "~ relu n49" in render_difference(many, every=True).splitlines()


def test_no_difference() -> None:
    assert render_difference(Difference((), (3, 3))) == "no difference: 3 nodes in both"


def test_the_report_has_everything(found: Difference) -> None:
    held = json.loads(json.dumps(difference_entries(found)))
    assert held["nodes"] == [9, 10]
    assert (held["added"], held["removed"], held["changed"]) == (1, 1, 3)
    assert held["changes"][3] == {
        "sign": "~",
        "op": "conv",
        "name": "c",
        "note": "",
        "details": [["precision", "f32", "u8"], ["weight", "f32", "i8"]],
    }
