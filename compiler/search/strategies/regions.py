"""Parts of a network that stay float as a whole: before a layer, behind one, between two."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from qdqc.diagnostics import QdqcError, suggestion
from qdqc.ir.core import Node
from qdqc.ir.graph import Graph
from qdqc.ir.view import to_networkx

__all__ = ["between", "node_named", "with_ancestors", "with_descendants"]


def node_named(graph: Graph, name: str) -> Node[Any]:
    """The node that makes the value of that name. Raises QdqcError."""
    value = graph.module.value(name)
    node = None if value is None else value.producer
    if node is None or node.graph is not graph:
        known = [r.name for n in graph.nodes() for r in n.present_results]
        note = "names are those of the .qir file; a layer is named by its first result"
        raise QdqcError(f"there is no layer '{name}'{suggestion(name, known)}", notes=[note])
    return node


def with_ancestors(graph: Graph, names: Iterable[str]) -> set[Node[Any]]:
    """The named layers and all that lead to them. Raises QdqcError for an unknown name."""
    import networkx

    view = to_networkx(graph)
    nodes = [node_named(graph, name) for name in names]
    return {n for node in nodes for n in (node, *networkx.ancestors(view, node))}


def with_descendants(graph: Graph, names: Iterable[str]) -> set[Node[Any]]:
    """The named layers and all that follows from them. Raises QdqcError for an unknown name."""
    import networkx

    view = to_networkx(graph)
    nodes = [node_named(graph, name) for name in names]
    return {n for node in nodes for n in (node, *networkx.descendants(view, node))}


def between(graph: Graph, starts: Iterable[str], ends: Iterable[str]) -> set[Node[Any]]:
    """What lies on the ways from layers to layers, these among it. Raises QdqcError.

    An empty part is an error: the layers then stand in the wrong order.
    """
    first, last = list(starts), list(ends)
    region = with_descendants(graph, first) & with_ancestors(graph, last)
    if not region:
        message = f"no way leads from {', '.join(first)} to {', '.join(last)}"
        raise QdqcError(message, notes=["a block is 'start:end', in the order of the network"])
    return region
