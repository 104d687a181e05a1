"""What people see of a check against the source: how sure it is, and what makes one doubt."""

from __future__ import annotations

import math
from typing import Any

from qdqc.diagnostics import Diagnostic, Severity, visible
from qdqc.report.comparison_text import json_number
from qdqc.runtime.comparison.against_source import AgainstSource
from qdqc.runtime.comparison.compare import Similarity

__all__ = ["doubts", "render_steadiness", "steadiness_entry", "unchecked_warning"]

_OTHERWISE = "under another optimisation level and on inputs moved in their last digits"


def render_steadiness(against: AgainstSource) -> str:
    """How near the source is to itself, which is as sure as the check can be."""
    agreement = _agreement(against.steadiness.decibels(r.name for r in against.comparison.rows))
    return f"the source agrees with itself {agreement} {_OTHERWISE}"


def _agreement(decibels: float) -> str:
    return f"to {decibels:.1f} dB" if math.isfinite(decibels) else _extreme(decibels)


def _extreme(decibels: float) -> str:
    return "exactly" if decibels > 0 else "in nothing"


def doubts(against: AgainstSource, *, are_random: bool) -> list[Diagnostic]:
    """Warnings: values too loose in the source to check, and more difference than rounding."""
    out: list[Diagnostic] = []
    shaky, own = against.shaky, against.steadiness.rows
    if shaky:
        first = min((own[n] for n in shaky), key=lambda row: row.sqnr)
        passed = len(against.let_through)
        kind = "random inputs" if are_random else "these inputs"
        out.append(
            _warning(
                f"the check is weak: on {kind} the source itself gives {len(shaky)} of "
                f"{len(against.comparison.rows)} values loosely {_OTHERWISE}, "
                f"'{visible(first.name)}' {_loosely(first)}"
                + (f"; {passed} pass for that reason" if passed else ""),
                "give data that the model was made for as `test_input`",
            )
        )
    if against.not_finite:
        out.append(
            _warning(
                f"the check is weak: the source gives no finite number of "
                f"'{visible(against.not_finite[0])}'",
                "look for weights that are not finite, or give data as `test_input`",
            )
        )
    doubtful = against.doubtful
    if doubtful:
        worst = min(doubtful, key=lambda row: row.sqnr)
        more = f" and {len(doubtful) - 1} other values agree" if len(doubtful) > 1 else " agrees"
        out.append(
            _warning(
                f"'{visible(worst.name)}'{more} with the source to {worst.sqnr:.1f} dB only, and "
                f"the source with itself {_agreement(own[worst.name].sqnr)}: "
                "this is more than rounding",
                "where the model rounds or compares inside, single elements may jump",
            )
        )
    return out


def _loosely(row: Similarity) -> str:
    return f"in another shape: {row.note}" if row.note else f"to {row.sqnr:.1f} dB"


def unchecked_warning(reason: str) -> Diagnostic:
    """Says that the comparison was with the imported module alone."""
    return _warning(
        f"not checked against the source, because {reason}",
        "the module is held against what was imported; an error of the import does not show",
    )


def _warning(message: str, note: str) -> Diagnostic:
    return Diagnostic(Severity.WARNING, message, notes=(note,))


def steadiness_entry(against: AgainstSource) -> dict[str, Any]:
    """As ``--report`` has it; a source that is always the same has no decibels."""
    names = [row.name for row in against.comparison.rows]
    return {
        "sure": not (against.shaky or against.doubtful or against.not_finite),
        "source_agrees_with_itself_db": json_number(against.steadiness.decibels(names)),
        "loose_in_the_source": against.shaky,
        "passed_for_that_reason": list(against.let_through),
        "no_finite_number": list(against.not_finite),
        "more_than_rounding": [row.name for row in against.doubtful],
    }
