"""Why a pass did not match: the reasons of its rules, the nearest misses first."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from qdqc.diagnostics import joined
from qdqc.ir.graph import Module
from qdqc.pipeline.instrument import Instrument, PassRun, Report, Where, Write
from qdqc.pipeline.pass_ import Mismatch, Pass, PassContext
from qdqc.pipeline.printing import check_names

__all__ = ["Explain"]

_EXAMPLES = 3


class Explain(Instrument):
    """Prints, for each rule of the named passes, why it declined.

    Reasons are grouped with their counts; those that a rule gave after passing more guards
    stand first, for they are the best failed matches.
    """

    def __init__(self, write: Write, names: Collection[str]) -> None:
        self.write = write
        self.names = names
        self._seen: set[str] = set()

    def begin(self, module: Module, passes: Sequence[Pass]) -> None:
        check_names(self.names, "--explain")

    def before(self, module: Module, where: Where, ctx: PassContext) -> None:
        if where.pass_.name in self.names:
            ctx.mismatches = []

    def after(self, module: Module, where: Where, run: PassRun, ctx: PassContext) -> None:
        if ctx.mismatches is None:
            return
        self._seen.add(where.pass_.name)
        left = [m for m in ctx.mismatches if module.value(m.node) is not None]
        lines = [f"// ----- why {where} left nodes alone: {run.changes} changes -----"]
        if not left:
            lines.append("no rule declined a node with a reason")
        for rule in dict.fromkeys(m.rule for m in left):
            lines.append(f"rule '{rule}'")
            lines += _reasons([m for m in left if m.rule == rule])
        self.write(joined(lines) + "\n")

    def end(self, module: Module, report: Report) -> None:
        ran = {run.name for run in report.runs}
        for name in self.names:
            if name not in ran and name not in self._seen:
                self.write(f"// ----- pass '{name}' did not run: it is not in the pipeline -----\n")


def _reasons(mismatches: Sequence[Mismatch]) -> list[str]:
    """One line a reason: how many nodes, why, and some of them."""
    groups: dict[str, dict[str, Mismatch]] = {}
    for mismatch in mismatches:  # the driver looks at a node more than once; each counts once
        groups.setdefault(mismatch.reason, {})[mismatch.node] = mismatch
    depth = {reason: max(m.depth for m in group.values()) for reason, group in groups.items()}
    order = sorted(groups, key=lambda reason: (-depth[reason], -len(groups[reason]), reason))
    lines: list[str] = []
    for reason in order:
        group = list(groups[reason].values())
        nodes = ", ".join(_example(m) for m in group[:_EXAMPLES])
        more = ", ..." if len(group) > _EXAMPLES else ""
        lines.append(f"{len(group):5} x {reason}: {nodes}{more}")
    return lines


def _example(mismatch: Mismatch) -> str:
    at = f" at {mismatch.value}" if mismatch.value else ""
    return f"{mismatch.op} %{mismatch.node}{at}"
