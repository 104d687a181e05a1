"""assign-precision: every node gets the mode that it is deployed in."""

from __future__ import annotations

from qdqc.diagnostics import QdqcError, suggestion
from qdqc.ir.graph import Graph
from qdqc.pipeline.pass_ import Pass, PassContext
from qdqc.quant.finite import odd_weights
from qdqc.quant.qtable import EMPTY, MODES, load_qtable, mode_named, plan
from qdqc.quant.refusals import NESTED_MODES

__all__ = ["AssignPrecision"]


class AssignPrecision(Pass):
    """Give every node its precision: a default mode, and the lines of a qtable.

    Nodes of nested graphs have one, too. The qtable is the file of the option, else the caller's.
    The header keeps its digest. A weight or bias that is not finite is an error, unless its node
    stays float: no other form keeps it.
    """

    name = "assign-precision"

    mode: str = "INT8"
    qtable: str = ""

    def run(self, graph: Graph, ctx: PassContext) -> int:
        default = mode_named(self.mode)
        if default is None:
            raise QdqcError(
                f"unknown mode '{self.mode}'{suggestion(self.mode.upper(), MODES)}",
                notes=[f"modes are {', '.join(MODES)}"],
            )
        qtable = load_qtable(self.qtable) if self.qtable else ctx.qtable
        modes = plan(graph, default, qtable or EMPTY)
        header, digest = graph.module.header, qtable.digest if qtable is not None else None
        changes = int(header.get("qtable") != digest)
        header.pop("qtable", None)
        if digest is not None:
            header["qtable"] = digest
        for node in graph.walk():
            mode = modes[node.name]
            ctx.statistics[mode] += 1
            changes += node.mode != mode
            node.mode = mode
        _check_weights(graph, ctx)
        return changes


def _check_weights(graph: Graph, ctx: PassContext) -> None:
    """Raises QdqcError for a weight that is not finite; warns of those that stay float."""
    for odd in odd_weights(graph):
        nested = odd.node.graph.owner is not None
        if odd.node.mode == "F32" or (nested and odd.node.mode not in NESTED_MODES):
            ctx.warn(f"{odd.message}; '{odd.node.name}' stays F32", odd.node)
            continue
        raise ctx.error(
            f"{odd.message}: '{odd.node.name}' can't take mode {odd.node.mode}",
            odd.node,
            "export the model again from weights that are right; where infinity is meant, keep "
            f"the node float by the line '{odd.node.name} F32' of a `qtable`",
        )
