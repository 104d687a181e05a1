"""What people see of the difference between two modules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from qdqc.diagnostics import joined
from qdqc.inspection.difference import Change, Detail, Difference

__all__ = ["difference_entries", "render_difference"]

_SHOWN = 40
"""Changes that a terminal gets unless it asks for all."""

_MOVES = 12
_WIDTH = 72


def render_difference(difference: Difference, *, every: bool = False) -> str:
    """Counts first, then each change with its details."""
    if not difference.changes:
        return f"no difference: {difference.nodes[0]} nodes in both"
    shown = difference.changes if every else difference.changes[:_SHOWN]
    lines = [line for change in shown for line in _lines(change)]
    if len(shown) < len(difference.changes):
        rest = len(difference.changes) - len(shown)
        lines.append(f"and {rest} more: -v shows all, --report FILE.json has them")
    return joined([*lines, *_counts(difference)])


def _lines(change: Change) -> Iterator[str]:
    yield f"{change.sign} {change.op} {change.name}"
    if change.note:
        yield f"    {change.note}"
    width = max((len(d.aspect) for d in change.details), default=0)
    for detail in change.details:
        yield f"    {detail.aspect:<{width}}  {_arrow(detail)}"


def _arrow(detail: Detail) -> str:
    return f"{_clipped(detail.before)} -> {_clipped(detail.after)}"


def _clipped(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 4]} ..."


def _counts(difference: Difference) -> list[str]:
    before, after = difference.nodes
    counts = ", ".join(f"{n} {what}" for what, n in difference.counts.items())
    lines = [f"{before} nodes against {after}: {counts}"]
    aspects = difference.by_aspect().items()
    if aspects:
        lines.append("changed in " + ", ".join(f"{aspect} {n}" for aspect, n in aspects))
    moves = [f"{d.aspect} {d.before} -> {d.after}: {n}" for d, n in difference.moves()[:_MOVES]]
    return [*lines, "; ".join(moves)] if moves else lines


def difference_entries(difference: Difference) -> dict[str, Any]:
    """The difference as ``--report`` and the page have it."""
    return {
        "nodes": list(difference.nodes),
        **difference.counts,
        "changes": [
            {
                "sign": c.sign,
                "op": c.op,
                "name": c.name,
                "note": c.note,
                "details": [[d.aspect, d.before, d.after] for d in c.details],
            }
            for c in difference.changes
        ],
    }
