"""Copies of modules. Contents of constants are shared, everything else is new."""

from __future__ import annotations

import copy
from typing import Any

from qdqc.ir.core import Node, Value
from qdqc.ir.graph import Graph, Module

__all__ = ["clone"]


def clone(module: Module) -> Module:
    """A module that prints as the given one and shares nothing that can change with it.

    A broken module (a value read before it is made) is copied as it is, so that it can be
    shown and reproduced.
    """
    out = Module(module.name, dict(module.opsets), copy.deepcopy(module.header))
    values: dict[Value, Value] = {}
    for constant in module.constants.values():
        values[constant] = out.add_constant(constant.name, constant.data, constant.tensor)
    nodes: list[tuple[Node[Any], Node[Any]]] = []
    graphs: list[tuple[Graph, Graph]] = []
    _copy_graph(module.graph, out.graph, values, nodes, graphs)
    for held, node in nodes:
        node.set_operands([None if v is None else values[v] for v in held.operands])
    for held, graph in graphs:
        graph.set_outputs([values[v] for v in held.outputs])
    return out


def _copy_graph(
    held: Graph,
    graph: Graph,
    values: dict[Value, Value],
    nodes: list[tuple[Node[Any], Node[Any]]],
    graphs: list[tuple[Graph, Graph]],
) -> None:
    """Copy inputs and nodes; operands and outputs follow when every value is there."""
    graphs.append((held, graph))
    for value in held.inputs:
        attrs = held.input_attrs.get(value.name)
        values[value] = graph.add_input(value.name, value.type, copy.deepcopy(attrs))
    for node in held.nodes():
        inner: list[Graph] = []
        for nested in node.graphs:
            inner.append(Graph(graph.module))
            _copy_graph(nested, inner[-1], values, nodes, graphs)
        made = graph.insert(
            node.op,
            (),
            [None if r is None else r.type for r in node.results],
            [None if r is None else r.name for r in node.results],
            loc=node.loc,
            mode=node.mode,
            graphs=inner,
        )
        nodes.append((node, made))
        for old, new in zip(node.results, made.results, strict=True):
            if old is not None and new is not None:
                values[old] = new
