"""What a deployment knew on its way: the placement, and the module between types and casts."""

from __future__ import annotations

from qdqc.ir.clone import clone
from qdqc.ir.graph import Module
from qdqc.pipeline.instrument import Instrument, Where
from qdqc.pipeline.pass_ import PassContext
from qdqc.quant.placement import Decision, decide
from qdqc.quant.targets.target import target_named

__all__ = ["Record"]


class Record(Instrument):
    """Looks on while a deployment pipeline runs.

    ``decisions`` are the placement by the names of nodes, as it stood just before ``quantize``.
    ``typed`` is the module that ``lower-to-qdq`` was given, whose types are integer.
    """

    def __init__(self) -> None:
        self.decisions: dict[str, Decision] = {}
        self.typed: Module | None = None

    def before(self, module: Module, where: Where, ctx: PassContext) -> None:
        target = getattr(where.pass_, "target", None)
        if where.pass_.name == "quantize" and isinstance(target, str):
            found = decide(module.graph, target_named(target))
            self.decisions = {node.name: decision for node, decision in found.items()}
        elif where.pass_.name == "lower-to-qdq":
            self.typed = clone(module)
