"""infer-shapes: types of all values from the types of the inputs."""

from __future__ import annotations

from qdqc.ir.core import Value
from qdqc.ir.graph import Graph
from qdqc.ir.merge import compatible, merge_types
from qdqc.ir.types import Type
from qdqc.pipeline.pass_ import Pass, PassContext

__all__ = ["InferShapes", "infer_graph"]


class InferShapes(Pass):
    """Infer shapes and element types; what is already known and more precise stays."""

    name = "infer-shapes"

    def run(self, graph: Graph, ctx: PassContext) -> int:
        return infer_graph(graph, ctx)


def infer_graph(graph: Graph, ctx: PassContext) -> int:
    """Infer in one sweep in graph order, nested graphs too; the number of types that changed.

    Raises QdqcError at the node whose operands do not fit.
    """
    changes = 0
    for node in graph.nodes():
        # What a branch gives is known once its nodes are.
        changes += sum(infer_graph(nested, ctx) for nested in node.graphs)
        try:
            types = node.op.infer_node(node)
        except ValueError as error:
            raise ctx.error(str(error), node) from error
        for result, inferred in zip(node.results, types, strict=False):
            if result is not None and inferred is not None:
                changes += _refine(result, inferred)
    return changes


def _refine(value: Value, inferred: Type) -> bool:
    """Take over what inference knows better; whether the type changed."""
    if not compatible(value.type, inferred):
        return False
    merged = merge_types(value.type, inferred)
    changed = merged != value.type
    value.type = merged
    return changed
