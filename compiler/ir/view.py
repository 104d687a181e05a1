"""A graph as networkx sees it, and what follows from that: order, cycles, cuts, regions, DOT.

Vertices are the nodes of one graph. An edge goes from the producer of a value to each reader;
what a nested graph captures counts as read by the node that it hangs on.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from qdqc.diagnostics import joined
from qdqc.ir.core import Node, Value
from qdqc.ir.graph import Graph
from qdqc.ir.spelling import print_type

if TYPE_CHECKING:
    import networkx

__all__ = [
    "convex_hull",
    "cut_values",
    "dominators",
    "find_cycle",
    "is_convex",
    "reads",
    "region_inputs",
    "region_outputs",
    "to_dot",
    "to_networkx",
    "topological_order",
]

K = TypeVar("K", bound=Hashable)
N = Node[Any]

ENTRY = "entry"
"""The vertex above all nodes in the dominator tree: the graph's inputs and constants."""


def reads(node: N) -> list[Value]:
    """What a node reads, its own operands first, then what its nested graphs capture."""
    captured = node.captures() if node.graphs else []
    return list(dict.fromkeys((*node.present_operands, *captured)))


def to_networkx(graph: Graph) -> networkx.MultiDiGraph[Any]:
    """Nodes as vertices with ``op``; an edge for each value and reader, with ``value``."""
    import networkx

    view: networkx.MultiDiGraph[Any] = networkx.MultiDiGraph()
    for node in graph.nodes():
        view.add_node(node, op=node.op.name)
    for node in graph.nodes():
        for value in reads(node):
            if value.producer is not None and value.graph is graph:
                view.add_edge(value.producer, node, value=value)
    return view


def find_cycle(readers: Mapping[K, Iterable[K]]) -> list[K]:
    """A cycle among plain edges ``producer -> readers``, each key once; empty where there is none.

    For use before a graph exists, on whatever an importer was given.
    """
    done: set[K] = set()
    for root in readers:
        path: dict[K, Iterator[K]] = {} if root in done else {root: iter(readers[root])}
        while path:
            at = next(reversed(path))
            for following in path[at]:
                if following in path:
                    names = list(path)
                    return names[names.index(following) :]
                if following not in done:
                    path[following] = iter(readers.get(following, ()))
                    break
            else:
                done.add(at)
                del path[at]
    return []


def topological_order(readers: Mapping[K, Iterable[K]]) -> list[K]:
    """Keys so that each stands before its readers, otherwise in the order given.

    Raises ValueError, naming the cycle, where there is one.
    """
    import networkx

    view: networkx.DiGraph[K] = networkx.DiGraph()
    view.add_nodes_from(readers)
    view.add_edges_from(
        (key, reader) for key, successors in readers.items() for reader in successors
    )
    place = {key: index for index, key in enumerate(view)}
    try:
        return list(networkx.lexicographical_topological_sort(view, key=place.__getitem__))
    except networkx.NetworkXUnfeasible:
        cycle = [str(key) for key in find_cycle(readers)]
        raise ValueError(f"these form a cycle: {' -> '.join([*cycle, cycle[0]])}") from None


def dominators(graph: Graph) -> dict[N, N | None]:
    """For each node the last node that every path from the inputs to it goes through.

    None where paths have no node in common.
    """
    import networkx

    view: networkx.DiGraph[Any] = networkx.DiGraph(to_networkx(graph))
    roots = [node for node in view if view.in_degree(node) == 0]
    # A node that also reads an input or has its own constants alone is reached from outside.
    fed = [node for node in view if any(v.is_input for v in reads(node))]
    view.add_edges_from((ENTRY, node) for node in dict.fromkeys((*roots, *fed)))
    if not roots:
        return {}
    immediate: Mapping[Any, Any] = networkx.immediate_dominators(view, ENTRY)
    return {n: None if immediate[n] == ENTRY else immediate[n] for n in graph.nodes()}


def cut_values(graph: Graph) -> list[Value]:
    """Values where the graph falls into a part before and a part after, in order.

    All that the nodes behind such a value read from before it is that value (and constants);
    these are the places where a model can be split with one tensor between the halves.
    """
    nodes = list(graph.nodes())
    place = {node: index for index, node in enumerate(nodes)}
    last: dict[Value, int] = {}
    for index, node in enumerate(nodes):
        for value in reads(node):
            if value.graph is graph:
                last[value] = index
    for value in graph.outputs:
        if value.graph is graph:
            last[value] = len(nodes)
    alive = {value for value in graph.inputs if value in last}
    cuts: list[Value] = []
    for node, index in place.items():
        alive = {value for value in alive if last[value] > index}
        alive.update(v for v in node.present_results if last.get(v, -1) > index)
        if len(alive) == 1 and index < len(nodes) - 1:
            (only,) = alive
            if not cuts or cuts[-1] is not only:
                cuts.append(only)
    return [value for value in cuts if not value.is_input]


def convex_hull(nodes: Iterable[N]) -> set[N]:
    """The nodes with all nodes that lie on a path between two of them."""
    members = list(nodes)
    if not members:
        return set()
    order = {node: index for index, node in enumerate(members[0].graph.nodes())}
    first, last = min(map(order.__getitem__, members)), max(map(order.__getitem__, members))
    window = [n for n, index in order.items() if first <= index <= last]
    inside = set(members)
    below = set(inside)
    for node in window:
        if any(v.producer in below for v in reads(node)):
            below.add(node)
    above = set(inside)
    for node in reversed(window):
        if node in above:
            above.update(v.producer for v in reads(node) if v.producer is not None)
    return below & above


def is_convex(nodes: Iterable[N]) -> bool:
    """Whether no path leaves the set and comes back: it could be one node."""
    members = set(nodes)
    return convex_hull(members) == members


def region_inputs(nodes: Iterable[N]) -> list[Value]:
    """What a set of nodes reads from outside, constants included, in order."""
    members = list(nodes)
    made = {result for node in members for result in node.present_results}
    values = dict.fromkeys(value for node in members for value in reads(node))
    return [value for value in values if value not in made]


def region_outputs(nodes: Iterable[N]) -> list[Value]:
    """What a set of nodes gives to the outside, in order."""
    members = list(nodes)
    inside = set(members)
    results = [r for node in members for r in node.present_results]
    return [r for r in results if r.is_output or not inside.issuperset(_readers(r))]


def _readers(value: Value) -> Iterator[N]:
    """Nodes of the value's own graph that read it, from within nested graphs too."""
    for user in value.users:
        node: N | None = user
        while node is not None and node.graph is not value.graph:
            node = node.graph.owner
        if node is not None:
            yield node


def to_dot(graph: Graph, fills: Mapping[N, str] = {}) -> str:
    """DOT text for Graphviz: ops as boxes, types on the edges; ``fills`` are colours of nodes."""
    ids = {node: f"n{index}" for index, node in enumerate(graph.nodes())}
    lines = ["digraph {", "  node [shape=box fontname=monospace];"]
    for index, value in enumerate(graph.inputs):
        lines.append(f"  in{index} [shape=ellipse label={_quoted(value.name)}];")
    for node, name in ids.items():
        label = _quoted(node.op.name, node.name)
        style = f" style=filled fillcolor={json.dumps(fills[node])}" if node in fills else ""
        lines.append(f"  {name} [label={label}{style}];")
    for index, value in enumerate(graph.outputs):
        lines.append(f"  out{index} [shape=ellipse label={_quoted(value.name)}];")
    sources: dict[Value, str] = {v: f"in{i}" for i, v in enumerate(graph.inputs)}
    sources |= {r: name for node, name in ids.items() for r in node.present_results}
    edges = [(v, name) for node, name in ids.items() for v in reads(node)]
    edges += [(value, f"out{index}") for index, value in enumerate(graph.outputs)]
    for value, target in edges:
        if value in sources:
            label = _quoted(print_type(value.type, elide=True))
            lines.append(f"  {sources[value]} -> {target} [label={label}];")
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(*lines: str) -> str:
    """Lines as DOT has them in quotes."""
    return json.dumps(joined(lines), ensure_ascii=False)
