"""Texts for people: comparisons."""

from __future__ import annotations

import csv
import io

import numpy as np

from qdqc.report.comparison_text import comparison_csv, render_comparison
from qdqc.runtime.comparison.pooled import compare

REFERENCE = {n: np.array([1.0, 2.0]) for n in "abcdefg"}


def test_the_summary_ends_with_the_first_failure_and_the_five_worst() -> None:
    steps = {"a": 0.0, "b": 0.5, "c": 0.1, "d": 0.4, "e": 0.2, "f": 0.6, "g": 0.3}
    found = compare({n: REFERENCE[n] + s for n, s in steps.items()}, REFERENCE)
    lines = render_comparison(found, kinds={"f": "conv"}).splitlines()
    assert lines[0] == "7 compared, 1 passed, 6 failed at tolerance 0.99,0.99"
    assert lines[1] == "first below tolerance:"
    assert lines[2].endswith("  b")
    assert lines[3] == "worst:"
    assert [line.split("  ")[-1][0] for line in lines[4:]] == ["f", "b", "d", "g", "e"]
    assert "largest difference 0.6  f" in lines[4]
    assert lines[4].endswith("f 'conv'")
    every = render_comparison(found, every=True).splitlines()
    assert len(every) == len(lines) + 7
    assert every[0].startswith("EQUAL       cos 1.000000  euclid 1.000000")


def test_all_passed_is_one_line() -> None:
    found = compare(REFERENCE, REFERENCE)
    assert render_comparison(found).count("\n") == 0


def test_csv_reads_back() -> None:
    found = compare(
        {"a": np.array([1.0, 2.5]), 'b,"x"': np.ones(1)}, REFERENCE | {'b,"x"': np.ones(1)}
    )
    rows = list(csv.DictReader(io.StringIO(comparison_csv(found))))
    assert [r["name"] for r in rows] == ["a", 'b,"x"']
    assert [r["passed"] for r in rows] == ["false", "true"]
    assert float(rows[0]["cos"]) == float(f"{found.rows[0].cos:.8g}")
    assert rows[1]["sqnr"] == "inf"


def test_a_row_that_has_no_figures_says_why() -> None:
    found = compare({"a": np.ones(3), "b": REFERENCE["b"]}, REFERENCE)
    lines = render_comparison(found, every=True).splitlines()
    assert lines[0] == "NOT_MATCH   shape [3] against [2]  a"
    rows = list(csv.DictReader(io.StringIO(comparison_csv(found))))
    assert [(r["name"], r["note"]) for r in rows] == [("a", "shape [3] against [2]"), ("b", "")]
