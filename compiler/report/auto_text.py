"""What people read of a search for the best model: what was tried, what was taken, and why."""

from __future__ import annotations

import math

from qdqc.diagnostics import joined
from qdqc.search.auto.candidate import Candidate
from qdqc.search.auto.plan import AutoPlan

__all__ = ["render_plan"]

_SHOWN = 10


def render_plan(plan: AutoPlan) -> str:
    """The candidates, the best ones first, and why nodes of the chosen one left INT8."""
    tried = sorted(plan.tried, key=lambda c: c is not plan.chosen)
    rows: list[tuple[str, ...]] = [
        ("model", "ranges", "dB", "ms", "speed", "nodes that are not INT8", "")
    ]
    for candidate in (plan.exact, *tried[: 2 * _SHOWN]):
        rows.append(_row(candidate, plan))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [f"goal: {plan.goal}"]
    lines += ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    if len(plan.alone) > 1:
        values, weights = (f"{plan.alone[kind]:.1f}" for kind in ("values", "weights"))
        lines.append(f"in INT8, values alone leave {values} dB, and weights alone {weights} dB")
    if plan.stopped:
        lines.append("the search was stopped: the best model so far is taken")
    if plan.chosen.is_float:
        lines.append("no quantized model that was tried is nearer to the goal than the float one")
    return joined([*lines, *_reasons(plan)])


def _row(candidate: Candidate, plan: AutoPlan) -> tuple[str, ...]:
    is_float = candidate.is_float
    modes = ", ".join(f"{count} {mode}" for mode, count in candidate.counts().items())
    ways = candidate.method + (f", {candidate.weights.recipe}" if candidate.weights.recipe else "")
    sqnr = candidate.quality.sqnr
    same = candidate is plan.chosen or (is_float and plan.chosen.is_float)
    return (
        candidate.label,
        "" if is_float else ways,
        f"{sqnr:.1f}" if math.isfinite(sqnr) else "",
        f"{1e3 * candidate.seconds:.3f}",
        f"{plan.exact.seconds / candidate.seconds:.2f}x",
        "all" if is_float else modes,
        "chosen" if same else "",
    )


def _reasons(plan: AutoPlan) -> list[str]:
    """A line for each of the first nodes that left INT8."""
    if plan.chosen.is_float:
        return []
    rows = [f"  {name} {plan.chosen.modes[name]}: {why}" for name, why in plan.reasons.items()]
    left = len(rows) - _SHOWN
    more = [f"  and {left} more, which --why NODE and the report give"] if left > 0 else []
    return [*(["not INT8:"] if rows else []), *rows[:_SHOWN], *more]
