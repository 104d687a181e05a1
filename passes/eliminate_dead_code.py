"""eliminate-dead-code: what nobody reads goes."""

from __future__ import annotations

from compiler.ir.graph import Graph
from compiler.pipeline.pass_ import Pass, PassContext
from compiler.rewrite.driver import erase_dead

__all__ = ["EliminateDeadCode"]


class EliminateDeadCode(Pass):
    """Erase nodes whose results nobody reads, and constants that nobody reads."""

    name = "eliminate-dead-code"

    def run(self, graph: Graph, ctx: PassContext) -> int:
        nodes = len(erase_dead(reversed(list(graph.walk()))))
        constants = graph.module.drop_unused_constants()
        ctx.statistics["nodes erased"] += nodes
        ctx.statistics["constants dropped"] += constants
        return nodes + constants
