"""Checks of an ONNX graph's wiring, before any native library sees it, and its order."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import chain

import networkx as nx
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto

from qdqc.diagnostics import QdqcError, suggestion
from qdqc.ir.loc import Loc

__all__ = [
    "Wiring",
    "all_nodes",
    "check_texts",
    "check_wiring",
    "inner_path",
    "node_label",
    "node_loc",
    "ordered_nodes",
    "reads",
    "subgraphs",
]

_SHOWN = 8


@dataclass(frozen=True)
class Wiring:
    """What is known around a graph: names of outer values, and the file for messages."""

    outer: AbstractSet[str]
    file: str | None


def node_label(node: NodeProto) -> str:
    """The name that messages and locations give a node: its own, or its first output's."""
    return node.name or next((o for o in node.output if o), node.op_type)


def node_loc(node: NodeProto) -> Loc:
    """The location that a node of the IR gets from the ONNX node."""
    return Loc((node_label(node),))


def subgraphs(node: NodeProto) -> Iterator[tuple[str, GraphProto]]:
    """Nested graphs with the names of their attributes; ``body[1]`` in a list of graphs."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.name, attribute.g
        for index, graph in enumerate(attribute.graphs):
            yield f"{attribute.name}[{index}]", graph


def inner_path(path: str, node: NodeProto, attribute: str) -> str:
    """The path of a nested graph, which qualifies its names: ``if_3/then/``."""
    return f"{path}{node_label(node)}/{attribute.removesuffix('_branch')}/"


def check_texts(model: ModelProto, file: str | None) -> None:
    """Refuse names that are not text; protobuf hands them out as bytes. Raises QdqcError."""
    texts = chain(
        (entry.domain for entry in model.opset_import),
        _graph_texts(model.graph),
        *(_function_texts(function) for function in model.functions),
    )
    if not all(type(text) is str for text in texts):
        raise QdqcError(
            "the model holds a name that is no UTF-8 text",
            file=file,
            notes=["the file is damaged; export the model again"],
        )


def _graph_texts(graph: GraphProto) -> Iterator[str]:
    yield graph.name
    for info in chain(graph.input, graph.output, graph.value_info):
        yield info.name
        yield from (dim.dim_param for dim in info.type.tensor_type.shape.dim)
    for tensor in chain(graph.initializer, (s.values for s in graph.sparse_initializer)):
        yield tensor.name
        yield from (text for e in tensor.external_data for text in (e.key, e.value))
    yield from _node_texts(graph.node)


def _function_texts(function: FunctionProto) -> Iterator[str]:
    yield from (function.name, function.domain, *function.input, *function.output)
    yield from function.attribute
    yield from (entry.domain for entry in function.opset_import)
    yield from _node_texts(function.node)


def _node_texts(nodes: Iterable[NodeProto]) -> Iterator[str]:
    for node in nodes:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        for attribute in node.attribute:
            yield from (attribute.name, attribute.ref_attr_name)
            yield from (dim.dim_param for dim in attribute.tp.tensor_type.shape.dim)
        for _, graph in subgraphs(node):
            yield from _graph_texts(graph)


def ordered_nodes(graph: GraphProto, wiring: Wiring) -> list[NodeProto]:
    """The nodes in an order of execution: the file's own order where that is one.

    Raises QdqcError for a name that is defined twice or never, and for cycles.
    """
    nodes = list(graph.node)
    given = _given_names(graph)
    makers = _makers(nodes, given, wiring)
    readers: dict[int, list[int]] = {}
    missing = [0] * len(nodes)
    for index, node in enumerate(nodes):
        sources: set[int] = set()
        for name in dict.fromkeys(reads(node)):
            if name in makers:
                sources.add(makers[name])
            elif name not in given and name not in wiring.outer:
                raise _undefined(name, node, [*makers, *given], wiring)
        missing[index] = len(sources)
        for source in sources:
            readers.setdefault(source, []).append(index)
    for info in graph.output:
        if info.name not in makers and info.name not in given and info.name not in wiring.outer:
            near = suggestion(info.name, [*makers, *given])
            raise QdqcError(
                f"graph output '{info.name}' is made by no node{near}",
                file=wiring.file,
                notes=["the model is damaged or was cut wrongly; export it again"],
            )
    ready = [i for i, count in enumerate(missing) if count == 0]
    order: list[NodeProto] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(nodes[index])
        for reader in readers.get(index, ()):
            missing[reader] -= 1
            if missing[reader] == 0:
                heapq.heappush(ready, reader)
    if len(order) < len(nodes):
        raise _cycle(nodes, readers, wiring)
    return order


def _given_names(graph: GraphProto) -> set[str]:
    """Names of a graph's inputs and initializers."""
    given = {i.name for i in graph.input} | {i.name for i in graph.initializer}
    return given | {s.values.name for s in graph.sparse_initializer}


def _makers(nodes: Sequence[NodeProto], given: AbstractSet[str], wiring: Wiring) -> dict[str, int]:
    """Which node makes each name."""
    makers: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for name in filter(None, node.output):
            if name in makers or name in given:
                first = (
                    f"node '{node_label(nodes[makers[name]])}'" if name in makers else "an input"
                )
                raise QdqcError(
                    f"the name '{name}' is defined twice: by {first} and by this node",
                    node=node.op_type,
                    loc=node_loc(node),
                    file=wiring.file,
                    notes=["ONNX wants each value to be made once; export the model again"],
                )
            makers[name] = index
    return makers


def reads(node: NodeProto) -> Iterator[str]:
    """Names that a node reads, in its nested graphs too."""
    yield from filter(None, node.input)
    for _, graph in subgraphs(node):
        yield from _free_names(graph)


def _free_names(graph: GraphProto) -> list[str]:
    """Names that a nested graph reads and does not define."""
    own = _given_names(graph)
    own.update(name for node in graph.node for name in node.output)
    names = [name for node in graph.node for name in reads(node)]
    names += [info.name for info in graph.output]
    return [name for name in dict.fromkeys(names) if name not in own]


def _undefined(name: str, node: NodeProto, known: Iterable[str], wiring: Wiring) -> QdqcError:
    near = suggestion(name, [*known, *wiring.outer])
    return QdqcError(
        f"input '{name}' is defined nowhere{near}",
        node=node.op_type,
        loc=node_loc(node),
        file=wiring.file,
        notes=["the model is damaged or was cut wrongly; export it again"],
    )


def _cycle(nodes: Sequence[NodeProto], readers: dict[int, list[int]], wiring: Wiring) -> QdqcError:
    graph: nx.DiGraph[int] = nx.DiGraph((a, b) for a, after in readers.items() for b in after)
    ring = [source for source, _ in nx.find_cycle(graph)]
    labels = [f"'{node_label(nodes[i])}'" for i in ring[:_SHOWN]]
    more = f" and {len(ring) - _SHOWN} more" if len(ring) > _SHOWN else ""
    return QdqcError(
        f"the graph has a cycle: {' -> '.join([*labels, labels[0]])}{more}",
        node=nodes[ring[0]].op_type,
        loc=node_loc(nodes[ring[0]]),
        file=wiring.file,
        notes=["a graph must flow from inputs to outputs; export the model again"],
    )


def check_wiring(model: ModelProto, file: str | None) -> None:
    """Refuse what hangs together wrongly anywhere in a model, functions and nested graphs too.

    Raises QdqcError for names that are defined twice or never, for cycles, and for functions
    that call themselves.
    """
    _check_nested(model.graph, frozenset(), file)
    for function in model.functions:
        body = GraphProto()
        body.node.extend(function.node)
        for name in function.input:
            body.input.add(name=name)
        for name in function.output:
            body.output.add(name=name)
        _check_nested(body, frozenset(), file)
    if model.functions:
        _check_calls(model, file)


def _check_nested(graph: GraphProto, outer: AbstractSet[str], file: str | None) -> None:
    order = ordered_nodes(graph, Wiring(outer, file))
    inner = [g for node in order for _, g in subgraphs(node)]
    if inner:
        seen = outer | _given_names(graph) | {name for node in order for name in node.output}
        for nested in inner:
            _check_nested(nested, seen, file)


def _check_calls(model: ModelProto, file: str | None) -> None:
    """Refuse model-local functions that call themselves. Raises QdqcError."""
    known: dict[tuple[str, str], FunctionProto] = {(f.domain, f.name): f for f in model.functions}
    calls: nx.DiGraph[tuple[str, str]] = nx.DiGraph()
    for key, function in known.items():
        for node in all_nodes(function.node):
            if (node.domain, node.op_type) in known:
                calls.add_edge(key, (node.domain, node.op_type))
    if not nx.is_directed_acyclic_graph(calls):
        ring = [source for source, _ in nx.find_cycle(calls)]
        names = " -> ".join(f"'{name}'" for _, name in [*ring, ring[0]])
        raise QdqcError(
            f"a function of the model calls itself: {names}",
            file=file,
            notes=["ONNX forbids recursion; export the model again"],
        )


def all_nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """The nodes, each with those of its nested graphs behind it."""
    for node in nodes:
        yield node
        for _, graph in subgraphs(node):
            yield from all_nodes(graph.node)
