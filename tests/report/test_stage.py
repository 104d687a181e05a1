"""A stage for other viewers: notes of values, and DOT."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

import qdqc
from qdqc.inspection.measure import Figures, Measured
from qdqc.inspection.pairs import pairs_of
from qdqc.ir.graph import Module
from qdqc.report.stage import stage_dot, stage_notes
from qdqc.runtime.comparison.compare import Comparison, Level, Similarity

TEXT = """module @m {opsets = {"" = 17}} {
  const %w : i8[4,3,1,1] q(axis = 0, scale = [0.5, 1, 1, 2]) = dense[1,2,3,4,5,6,7,8,9,1,1,2]
  graph (%x : f32[1,3,8,8] range(-1, 2.5, 2.25)) -> (%y) {
    %q = quantize(%x) : u8[1,3,8,8] q(scale = 0.5, zero_point = 3)
    %c = conv(%q, %w) : u8[1,4,8,8] q(scale = 0.25) loc("/c")
    %"<b>\\"" = dequantize(%c) : f32[1,4,8,8]
    %y = sigmoid(%"<b>\\"") : f32[1,4,8,8] mode(F32) loc("/y")
  }
}"""


@pytest.fixture
def module() -> Module:
    return qdqc.from_text(TEXT)


def measured(module: Module, **decibels: float) -> Measured:
    figures = [Figures(p) for p in pairs_of(module, module)]
    for one in figures:
        sqnr = decibels.get(one.pair.value.name, float("inf"))
        one.similarity = Similarity(one.name, 1.0, 1.0, sqnr, Level.SIMILAR)
    return Measured(figures, Comparison((), (0.99, 0.9)), Comparison((), (0.99, 0.9)), 1)


def test_notes_say_what_the_types_say(module: Module) -> None:
    notes = stage_notes(module)
    assert set(notes) == {"x", "q", "c", '<b>"', "y"}
    assert notes["x"] == {
        "type": "f32[1,3,8,8] range(-1, 2.5, 2.25)",
        "precision": "f32",
        "range": "-1 2.5",
        "threshold": "2.25",
    }
    assert notes["c"] | {} == {
        "type": "u8[1,4,8,8] q(scale = 0.25)",
        "precision": "u8",
        "scale": "0.25",
        "zero_point": "0",
        "ir": "%c = conv(%q, %w) : u8[1,4,8,8] q(scale = 0.25)",
        "weight": "i8[4,3,1,1], 4 scales 0.5..2 on axis 0",
    }
    assert notes["q"]["zero_point"] == "3"
    assert notes["y"]["mode"] == "F32"


def test_measured_errors_join_the_notes(module: Module) -> None:
    notes = stage_notes(module, measured(module, y=31.25))
    assert notes["y"]["sqnr"] == "31.25"
    assert notes["x"]["outside"] == "0"
    assert "sqnr" not in notes["q"], "a cast makes no value of its own"


def colours(text: str) -> dict[str, str]:
    found = re.findall(r'\[label="(\w+)\\n.*?" style=filled fillcolor="(.*?)"\]', text)
    return dict(found)


def test_dot_is_coloured_by_precision_or_by_error(module: Module) -> None:
    kinds = colours(stage_dot(module))
    assert kinds["quantize"] == kinds["conv"] != kinds["sigmoid"] == kinds["dequantize"]
    errors = colours(stage_dot(module, measured(module, c=0.0, y=20.0)))
    assert errors == {"conv": "0.000 0.45 0.9", "sigmoid": "0.167 0.45 0.9"}
    assert "u8[1,4,8,8] q(scale = 0.25)" in stage_dot(module), "types stand at the edges"


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
def test_graphviz_reads_it(module: Module) -> None:
    text = stage_dot(module)
    done = subprocess.run(
        ["dot", "-Tplain"], input=text, capture_output=True, text=True, check=True
    )
    assert done.stdout.count("\nnode ") == 6
