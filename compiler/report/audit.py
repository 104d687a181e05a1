"""What people see of an audit."""

from __future__ import annotations

from typing import Any

from compiler.runtime.audit import Audit

__all__ = ["audit_entries", "render_audit"]


def render_audit(audit: Audit) -> str:
    """How many products run in integers, and each that does not with its reason."""
    integer, floats = audit.products("integer"), audit.products("float")
    others = [r for r in audit.rows if not r.is_product]
    count = sum(r.runs == "integer" for r in others)
    total = len(integer) + len(floats)
    head = f"integer: {len(integer)} of {total} Conv, ConvTranspose, MatMul and Gemm"
    lines = [f"{head}; {count} of {len(others)} other nodes"]
    for row in floats:
        lines.append(f"  float {row.op} {row.name}: {row.reason}")
    for row in audit.findings:
        if row.runs == "integer":
            lines.append(f"  integer {row.op} {row.name}: {row.reason}")
    return "\n".join(lines)


def audit_entries(audit: Audit) -> dict[str, Any]:
    """The audit as ``--report`` has it."""
    return {
        "ops": [
            {"name": r.name, "op": r.op, "runs": r.runs, "kernel": r.kernel, "reason": r.reason}
            for r in audit.rows
        ],
        "integer": len(audit.products("integer")),
        "float": len(audit.products("float")),
    }
