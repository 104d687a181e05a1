"""What can look on while a pipeline runs; the instruments themselves stand in other files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from qdqc.ir.graph import Module
from qdqc.pipeline.pass_ import Pass, PassContext

if TYPE_CHECKING:
    from qdqc.quant.placement import Decision

__all__ = ["Instrument", "PassRun", "Report", "Where", "Write"]

Write: TypeAlias = Callable[[str], object]
"""Takes text for people; ``sys.stderr.write`` as a rule."""


@dataclass(frozen=True)
class Where:
    """A pass at its place in a pipeline; ``index`` counts from 1."""

    pass_: Pass
    index: int
    total: int

    def __str__(self) -> str:
        return f"'{self.pass_.name}' ({self.index} of {self.total})"


@dataclass
class PassRun:
    """What one pass did: changes, its counters, and seconds of the pass and the verifier."""

    name: str
    changes: int = 0
    seconds: float = 0.0
    verify_seconds: float = 0.0
    statistics: Counter[str] = field(default_factory=Counter)


@dataclass
class Report:
    """What a pipeline did, pass by pass, what its passes decided of nodes, and why, by name."""

    runs: list[PassRun] = field(default_factory=list)
    decisions: Mapping[str, Decision] = field(default_factory=dict[str, "Decision"])
    reasons: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def changes(self) -> int:
        return sum(run.changes for run in self.runs)

    @property
    def seconds(self) -> float:
        return sum(run.seconds + run.verify_seconds for run in self.runs)


class Instrument:
    """Base of instruments: every hook does nothing until a subclass says otherwise."""

    def begin(self, module: Module, passes: Sequence[Pass]) -> None:
        """Before the first pass. Raises QdqcError where the instrument can't work."""

    def before(self, module: Module, where: Where, ctx: PassContext) -> None:
        """Before each pass; may switch on what the context collects."""

    def after(self, module: Module, where: Where, run: PassRun, ctx: PassContext) -> None:
        """After each pass that went well, the verifier included."""

    def failed(self, module: Module, where: Where, error: Exception) -> str | None:
        """After a pass that failed or broke the module; returns a note for the error."""
        return None

    def end(self, module: Module, report: Report) -> None:
        """After the last pass, or after a failure."""
