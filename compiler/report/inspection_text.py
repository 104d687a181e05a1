"""What people see of an inspection in a terminal."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

from qdqc.diagnostics import joined
from qdqc.inspection.causes import Cause
from qdqc.inspection.measure import Figures, Measured
from qdqc.report.comparison_text import json_number
from qdqc.runtime.comparison.compare import decibels

__all__ = ["figures_entry", "inspection_entries", "render_inspection"]

_OUTPUTS = 6
_WORST = 10
_WIDTH = 100
_HEAD = ("run dB", "own dB", "as", "outside", "covered", "values reach", "op", "name")


def render_inspection(measured: Measured, causes: Sequence[Cause]) -> str:
    """Outputs, causes, where the runs part first, and the ten values that end up worst."""
    lines = [f"{measured.samples} samples, {len(measured.figures)} values compared"]
    lines += [*_output_lines(measured), *_cause_lines(causes)]
    first = measured.comparison.first_failure
    cos, euclid = measured.comparison.tolerance
    if first is None:
        lines.append(f"no value is below tolerance {cos:g},{euclid:g}")
    else:
        lines.append(
            f"first below tolerance {cos:g},{euclid:g}: '{first.name}' "
            f"(cos {first.cos:.4f}, SQNR {_db(first.sqnr)})"
        )
    lines += ["worst by SQNR (own: its nodes alone on float inputs; run: the whole run):"]
    return joined([*lines, *_table(_worst(measured.figures))])


def _output_lines(measured: Measured) -> list[str]:
    """Outputs in order; of many, the worst."""
    rows = list(measured.outputs.rows)
    if len(rows) > _OUTPUTS:
        rows = sorted(rows, key=lambda r: r.sqnr)[:_OUTPUTS]
    lines = [
        f"output '{r.name}': cos {r.cos:.6f}, SQNR {_db(r.sqnr)}, "
        f"largest element agrees in {measured.agreement.get(r.name, 0.0):.1%}"
        for r in rows
    ]
    rest = len(measured.outputs.rows) - len(rows)
    return [*lines, f"and {rest} outputs that are better"] if rest else lines


def _worst(figures: Sequence[Figures]) -> list[Figures]:
    made = [f for f in figures if f.pair.node is not None and math.isfinite(f.sqnr)]
    return sorted(made, key=lambda f: f.sqnr)[:_WORST]


def _cause_lines(causes: Sequence[Cause]) -> list[str]:
    if not causes:
        return ["no cause stands out: ranges and weights fit, and every node does what it should"]
    lines = ["causes, the likeliest first:"]
    for place, cause in enumerate(causes[:_WORST], 1):
        lines += _wrapped(f"  {place}. [{cause.kind}] {cause.text}", "     ")
        lines += _wrapped(f"     next: {cause.advice}", "           ")
    if len(causes) > _WORST:
        lines.append(f"  and {len(causes) - _WORST} more, in --report FILE.json")
    return lines


def _wrapped(text: str, indent: str) -> list[str]:
    """Lines of at most ``_WIDTH``, but for names that are longer."""
    return textwrap.wrap(
        text,
        _WIDTH,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _table(figures: Sequence[Figures]) -> list[str]:
    """Rows in columns, names last, as they may be long."""
    rows = [_HEAD, *map(_row, figures)]
    widths = [max(len(r[i]) for r in rows) for i in range(len(_HEAD) - 1)]
    cells = ([c.rjust(w) for c, w in zip(row, widths, strict=False)] for row in rows)
    return [" " + "  ".join([*columns, row[-1]]) for columns, row in zip(cells, rows, strict=True)]


def _row(f: Figures) -> tuple[str, ...]:
    covered = "" if f.covered is None else _ends(*f.covered)
    own = f"{decibels(f.local):.1f}" if f.local > 0 else "exact"
    outside = "" if f.covered is None else f"{f.outside:.2%}"
    figures = (f"{f.sqnr:.1f}", own, f.precision, outside, covered, _ends(f.low, f.high))
    return (*figures, f.op, f.name)


def _ends(low: float, high: float) -> str:
    return f"{low:.3g}..{high:.3g}"


def _db(value: float) -> str:
    return f"{value:.1f} dB" if math.isfinite(value) else "without end"


def inspection_entries(measured: Measured, causes: Sequence[Cause]) -> dict[str, Any]:
    """The inspection as ``--report`` has it."""
    first = measured.comparison.first_failure
    return {
        "samples": measured.samples,
        "outputs": {
            r.name: {
                "cos": r.cos,
                "sqnr": json_number(r.sqnr),
                "agreement": measured.agreement[r.name],
            }
            for r in measured.outputs.rows
        },
        "causes": [
            {"kind": c.kind, "name": c.name, "text": c.text, "next": c.advice} for c in causes
        ],
        "first_divergence": None if first is None else first.name,
        "values": [figures_entry(f) for f in measured.figures],
    }


def figures_entry(f: Figures) -> dict[str, Any]:
    """One value with its figures as plain numbers; None where there is no number."""
    return {
        "name": f.name,
        "op": f.op,
        "precision": f.precision,
        "range": None if f.covered is None else list(f.covered),
        "reach": [json_number(f.low), json_number(f.high)],
        "outside": f.outside,
        "cos": None if f.similarity is None else f.similarity.cos,
        "sqnr": json_number(f.sqnr),
        "own_sqnr": json_number(decibels(f.local)),
    }
