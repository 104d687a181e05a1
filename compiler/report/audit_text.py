"""What people see of an audit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qdqc.diagnostics import joined
from qdqc.report.comparison_text import json_number
from qdqc.runtime.audit.audit import Audit, AuditRow, products_text
from qdqc.runtime.audit.fusions import BadFusion

__all__ = ["audit_entries", "bad_fusion_entries", "render_audit", "render_bad_fusions"]

_NAMED = 3
"""So many nodes of one reason are named; ``--report`` has all."""


def render_audit(audit: Audit) -> str:
    """How many products run in integers, and each that does not with its reason."""
    integer, floats = audit.products("integer"), audit.products("float")
    count, total = len(audit.others("integer")), len(integer) + len(floats)
    others = count + len(audit.others("float"))
    under = "" if audit.runtime == "onnxruntime" else f" under {audit.runtime}"
    ops = {row.op for row in audit.rows}
    head = f"integer{under}: {len(integer)} of {total} {products_text(ops)}"
    folded = len(audit.products("folded"))
    rest = f"; {folded} more have no kernel left" if folded else ""
    lines = [f"{head}; {count} of {others} other nodes{rest}"]
    lines += _by_reason("float", floats)
    lines += _by_reason("integer", [r for r in audit.findings if r.runs == "integer"])
    return joined(lines)


def _by_reason(runs: str, rows: Sequence[AuditRow]) -> list[str]:
    """One line for each op and reason, with the first names; of a rule the first that breaks it."""
    groups: dict[tuple[str, str], list[AuditRow]] = {}
    for row in rows:
        groups.setdefault((row.op, row.rule or row.reason), []).append(row)
    lines: list[str] = []
    for (op, _), group in groups.items():
        names = ", ".join(row.name for row in group[:_NAMED])
        more = f" and {len(group) - _NAMED} more" if len(group) > _NAMED else ""
        lines.append(f"  {runs} {op} {names}{more}: {group[0].reason}")
    return lines


def render_bad_fusions(bad: Sequence[BadFusion]) -> str:
    """What onnxruntime's optimisations change, in one sentence."""
    named = ", ".join(f"'{b.name}' ({b.op}, {b.steps:.0f} steps)" for b in bad[:_NAMED])
    more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
    return f"onnxruntime fuses badly: {named}{more} come out otherwise than their casts say"


def bad_fusion_entries(bad: Sequence[BadFusion]) -> list[dict[str, Any]]:
    """Bad fusions as ``--report`` has them; JSON has no infinity."""
    return [{"name": b.name, "op": b.op, "steps": json_number(b.steps)} for b in bad]


def audit_entries(audit: Audit) -> dict[str, Any]:
    """The audit as ``--report`` has it; a node that breaks no rule has no ``rule``."""
    return {
        "ops": [_entry(row) for row in audit.rows],
        "runtime": audit.runtime,
        "integer": len(audit.products("integer")),
        "float": len(audit.products("float")),
    }


def _entry(row: AuditRow) -> dict[str, str]:
    entry = {"name": row.name, "op": row.op, "runs": row.runs, "kernel": row.kernel}
    rule = {"rule": row.rule} if row.rule else {}
    return entry | {"reason": row.reason} | rule
