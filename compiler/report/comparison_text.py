"""What people see of a comparison of two runs."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping

from qdqc.diagnostics import joined, visible
from qdqc.runtime.comparison.compare import Comparison, Similarity

__all__ = [
    "comparison_csv",
    "json_number",
    "render_comparison",
    "render_similarity",
    "similarity_entries",
]

_FIGURES = ("cos", "euclid", "sqnr", "max_abs", "share_equal")


def render_similarity(row: Similarity, kinds: Mapping[str, str] | None = None) -> str:
    """One value in one line: its level and figures."""
    kind = f" '{kinds[row.name]}'" if kinds and row.name in kinds else ""
    name = visible(row.name)
    chosen = "" if row.judged else "  (follows from a choice, not judged)"
    if row.note:
        return f"{row.level.value:<11} {row.note}  {name}{kind}{chosen}"
    if row.labels:
        return f"{row.level.value:<11} {row.share_equal:.2%} equal  {name}{kind}{chosen}"
    largest = f"  largest difference {row.max_abs:.4g}" if row.few else ""
    return (
        f"{row.level.value:<11} cos {row.cos:.6f}  euclid {row.euclid:.6f}  "
        f"sqnr {row.sqnr:6.1f} dB{largest}  {name}{kind}{chosen}"
    )


def render_comparison(
    comparison: Comparison, *, kinds: Mapping[str, str] | None = None, every: bool = False
) -> str:
    """The summary: counts, and where a value failed the first in graph order and the worst.

    ``kinds`` maps names of values to the ops that make them; ``every`` lists all values.
    """
    rows = comparison.rows
    passed = sum(r.passed for r in rows)
    lines = [render_similarity(r, kinds) for r in rows] if every else []
    cos, euclid = comparison.tolerance
    lines.append(
        f"{len(rows)} compared, {passed} passed, {len(rows) - passed} failed "
        f"at tolerance {cos:g},{euclid:g}"
    )
    first = comparison.first_failure
    if first is not None:
        lines += ["first below tolerance:", f"  {render_similarity(first, kinds)}", "worst:"]
        lines += [f"  {render_similarity(r, kinds)}" for r in comparison.worst()]
    return joined(lines)


def comparison_csv(comparison: Comparison) -> str:
    """All values with their figures as CSV, in the order of the comparison."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["name", "level", "passed", "cos", "euclid", "sqnr", "max_abs", "share_equal", "note"]
    )
    for row in comparison.rows:
        figures = [f"{getattr(row, figure):.8g}" for figure in _FIGURES]
        level, passed = row.level.value, str(row.passed).lower()
        writer.writerow([visible(row.name), level, passed, *figures, row.note])
    return out.getvalue()


def similarity_entries(rows: Iterable[Similarity]) -> dict[str, dict[str, float | None]]:
    """Figures by name as ``--report`` has them; of labels there is the share that is equal."""
    return {
        r.name: {
            "cos": None if r.labels else r.cos,
            "euclid": None if r.labels else r.euclid,
            "sqnr": None if r.labels else json_number(r.sqnr),
            "max_abs": None if r.labels else json_number(r.max_abs),
            "share_equal": r.share_equal,
        }
        for r in rows
    }


def json_number(value: float) -> float | None:
    """JSON has no infinity: the SQNR of an exact result is none."""
    return value if math.isfinite(value) else None
