"""Names reach a terminal as text, whatever they hold."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qdqc.data.archive import Archive, write_arrays
from qdqc.diagnostics import joined, visible
from qdqc.inspection.causes import Cause
from qdqc.inspection.difference import Change, Detail, Difference
from qdqc.inspection.measure import Figures, Measured
from qdqc.inspection.pairs import pairs_of
from qdqc.ir.graph import Module
from qdqc.ir.types import Elem, TensorType
from qdqc.report.arrays import render_array, render_statistics, statistics_of
from qdqc.report.comparison_text import render_comparison
from qdqc.report.difference_text import render_difference
from qdqc.report.inspection_text import render_inspection
from qdqc.runtime.comparison.compare import Comparison, Level, Similarity
from qdqc.runtime.comparison.pooled import compare

ODD = "a\x1b[31m red\nx\u202eé"


@given(st.text())
def test_what_is_seen_is_one_line_that_reads_back(text: str) -> None:
    seen = visible(text)
    assert seen.isprintable()
    if text.isprintable():
        assert seen == text
    assert "\n" not in joined([text])


def test_escapes_are_those_of_python() -> None:
    assert visible(ODD) == "a\\x1b[31m red\\nx\\u202eé"
    assert joined(["a\nb", "c"]) == "a\\nb\nc"


def test_every_table_keeps_its_lines(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a.npz", {ODD: np.ones(2)})
    archive = Archive(tmp_path / "a.npz")
    comparison = compare({ODD: np.ones(2)}, {ODD: np.zeros(2)})
    found = Difference((Change("~", "relu", ODD, (Detail("op", ODD, "x"),)),), (1, 1))
    shown = {
        "array": (render_array(archive, ODD), 3),
        "statistics": (render_statistics(statistics_of(archive, ODD)), 2),
        "comparison": (render_comparison(comparison, every=True), 6),
        "difference": (render_difference(found), 5),
    }
    for what, (text, count) in shown.items():
        assert len(text.splitlines()) == count, what
        assert all(line.isprintable() for line in text.split("\n")), what
        assert "\\x1b[31m" in text, what


def test_an_inspection_of_odd_names() -> None:
    module = Module()
    module.graph.set_outputs([module.graph.add_input(ODD, TensorType(Elem.F32, (2,)))])
    figures = [Figures(p, low=0.0, high=1.0) for p in pairs_of(module, module)]
    row = Similarity(ODD, 0.5, 0.5, 3.0, Level.NOT_SIMILAR)
    figures[0].similarity = row
    held = Comparison((row,), (0.99, 0.9))
    measured = Measured(figures, held, dataclasses.replace(held), 1, {ODD: 1.0})
    text = render_inspection(measured, [Cause("range", ODD, f"relu '{ODD}' is wide", "look")])
    assert all(line.isprintable() for line in text.split("\n"))
    assert text.count("\\x1b[31m") == 3
