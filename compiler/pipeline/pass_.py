"""The base of all passes: a pass is a frozen dataclass of its options."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, dataclass_transform

from qdqc.diagnostics import Diagnostic, QdqcError, Severity
from qdqc.ir.core import Node
from qdqc.ir.graph import Graph
from qdqc.ir.loc import Loc
from qdqc.registry import Registry

if TYPE_CHECKING:
    from qdqc.calibration.table import Table
    from qdqc.quant.placement import Decision
    from qdqc.quant.qtable import Qtable

__all__ = ["PASSES", "Mismatch", "Pass", "PassContext", "describe"]

PASSES: Registry[type[Pass]] = Registry("pass")


@dataclass(frozen=True)
class Mismatch:
    """Why a rule declined a node. ``depth`` grows with the guards that had been passed."""

    rule: str
    node: str
    op: str
    reason: str
    depth: int
    loc: Loc
    value: str | None = None


@dataclass
class PassContext:
    """What a pass is given beside the graph, and what it may say besides changing it.

    ``statistics`` counts what was done, by a name that a reader understands. ``mismatches``
    collects declined matches when somebody asked (``--explain``), else it is None. The caller's
    ``samples`` are inputs by name, for passes that measure the module; its ``table`` and
    ``qtable`` are for those that read one. Each is None where the caller has none.
    ``decisions`` is what a pass decided of nodes, by their names, ``reasons`` why they are not in
    the mode that was asked for.
    """

    statistics: Counter[str] = field(default_factory=Counter)
    warnings: list[Diagnostic] = field(default_factory=list)
    mismatches: list[Mismatch] | None = None
    samples: Iterable[dict[str, Any]] | None = None
    table: Table | None = None
    qtable: Qtable | None = None
    decisions: Mapping[str, Decision] = field(default_factory=dict[str, "Decision"])
    reasons: dict[str, str] = field(default_factory=dict[str, str])

    def decline(self, rule: str, node: Node[Any], reason: str) -> None:
        """Note why a pass over the whole graph left a node alone."""
        if self.mismatches is not None:
            mismatch = Mismatch(rule, node.name, node.op.name, reason, 0, node.loc)
            self.mismatches.append(mismatch)

    def warn(self, message: str, node: Node[Any] | None = None, *notes: str) -> None:
        """Report something that the user should know and that stops nothing."""
        name = None if node is None else node.op.name
        loc = None if node is None else node.loc
        self.warnings.append(Diagnostic(Severity.WARNING, message, name, loc, notes=notes))

    def error(self, message: str, node: Node[Any], *notes: str) -> QdqcError:
        """An error located at a node, to be raised by the pass."""
        return QdqcError(message, node=node.op.name, loc=node.loc, notes=notes)


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Pass:
    """Base class of passes; defining a subclass makes it a frozen dataclass and registers it.

    The first line of the docstring is what ``--list-passes`` shows; annotated fields are the
    options: ``name{field=value other=value}`` on a command line, dashes for underscores.
    """

    name: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclass(frozen=True, kw_only=True)(cls)
        if cls.name:
            PASSES.add(cls.name, cls)

    def run(self, graph: Graph, ctx: PassContext) -> int:
        """Change the module's graph in place; returns the number of changes."""
        raise NotImplementedError(f"{type(self).__name__}.run")


def describe(cls: type[Pass]) -> str:
    """The first line of a pass's docstring."""
    return (cls.__doc__ or "").strip().partition("\n")[0]
