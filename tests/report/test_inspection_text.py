"""The text of an inspection: what stands where."""

from __future__ import annotations

import dataclasses
import json

import pytest

import qdqc
from qdqc.inspection.causes import Cause
from qdqc.inspection.measure import Figures, Measured
from qdqc.inspection.pairs import pairs_of
from qdqc.report.inspection_text import inspection_entries, render_inspection
from qdqc.runtime.comparison.compare import Comparison, Level, Similarity

COUNT = 15


@pytest.fixture
def measured() -> Measured:
    """Values v0 to v14, of which the later ones are worse."""
    nodes = "\n".join(f"%v{i} = relu(%{f'v{i - 1}' if i else 'x'}) : f32[2]" for i in range(COUNT))
    text = (
        f'module @m {{opsets = {{"" = 17}}}} {{\ngraph (%x : f32[2]) -> (%v14) {{\n{nodes}\n}}\n}}'
    )
    module = qdqc.from_text(text)
    figures = [Figures(p, low=-1.0, high=1.0) for p in pairs_of(module, module)]
    for place, one in enumerate(figures):
        level = Level.NOT_SIMILAR if place > 8 else Level.SIMILAR
        one.similarity = Similarity(one.name, 1 - place / 100, 0.9, 50.0 - place, level)
    rows = tuple(f.similarity for f in figures if f.similarity is not None)
    ends = Comparison(rows[-1:], (0.99, 0.9))
    return Measured(figures, Comparison(rows, (0.99, 0.9)), ends, 4, {"v14": 0.75})


def test_causes_come_before_the_ten_worst(measured: Measured) -> None:
    causes = [Cause("weight", "v3", "the weight of 'v3' is wrong", "deploy again", 0.5)]
    lines = render_inspection(measured, causes).splitlines()
    assert lines[:5] == [
        "4 samples, 16 values compared",
        "output 'v14': cos 0.850000, SQNR 35.0 dB, largest element agrees in 75.0%",
        "causes, the likeliest first:",
        "  1. [weight] the weight of 'v3' is wrong",
        "     next: deploy again",
    ]
    assert lines[5] == "first below tolerance 0.99,0.9: 'v8' (cos 0.9100, SQNR 41.0 dB)"
    assert [line.split()[-1] for line in lines[8:]] == [f"v{i}" for i in range(14, 4, -1)]
    assert lines[8].split() == ["35.0", "exact", "f32", "-1..1", "relu", "v14"]


def test_many_causes_are_cut_short(measured: Measured) -> None:
    one = Cause("node", "v", "text", "next")
    text = render_inspection(measured, [dataclasses.replace(one, name=f"v{i}") for i in range(12)])
    assert "  10. [node]" in text
    assert "  11. [node]" not in text
    assert "and 2 more, in --report FILE.json" in text


def test_nothing_wrong(measured: Measured) -> None:
    fine = dataclasses.replace(measured, comparison=Comparison((), (0.99, 0.9)))
    text = render_inspection(fine, [])
    assert "no cause stands out" in text
    assert "no value is below tolerance 0.99,0.9" in text


def test_the_report_is_json_without_infinities(measured: Measured) -> None:
    entries = inspection_entries(measured, [Cause("node", "v3", "text", "next")])
    held = json.loads(json.dumps(entries, allow_nan=False))
    assert held["causes"] == [{"kind": "node", "name": "v3", "text": "text", "next": "next"}]
    assert held["first_divergence"] == "v8"
    assert [v["name"] for v in held["values"]][:2] == ["x", "v0"]
    assert held["values"][1]["own_sqnr"] is None, "an exact value has no error to measure"


def test_long_causes_are_wrapped_and_names_stay_whole(measured: Measured) -> None:
    name = "/a" * 60
    cause = Cause("range", name, f"conv '{name}' " + "covers far too much " * 9, "look " * 40)
    lines = render_inspection(measured, [cause]).splitlines()
    told = [line for line in lines if line.startswith("  ") and "dB" not in line]
    assert max(len(line) for line in told if name not in line) <= 100
    assert any(f"'{name}'" in line for line in told)
    assert " ".join(" ".join(told).split()).count("covers far too much") == 9


def test_of_many_outputs_the_worst_are_shown(measured: Measured) -> None:
    rows = measured.comparison.rows
    many = dataclasses.replace(measured, outputs=Comparison(rows, (0.99, 0.9)))
    lines = [line for line in render_inspection(many, []).splitlines() if "output" in line]
    assert [line.split("'")[1] for line in lines[:-1]] == [f"v{i}" for i in range(14, 8, -1)]
    assert lines[-1] == "and 10 outputs that are better"
