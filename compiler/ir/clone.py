"""Modules without their edges: what copies and pickles are made of.

Values are named in place of being pointed at, so that a graph of any depth is a flat record.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple, TypeAlias

from qdqc.ir.core import Node, Value
from qdqc.ir.data import Data
from qdqc.ir.graph import Attributes, Graph, Module
from qdqc.ir.loc import Loc
from qdqc.ir.op import Op
from qdqc.ir.types import TensorType, Type

__all__ = ["ModuleRecord", "clone", "rebuild", "record"]


_Values: TypeAlias = dict[str | None, Value | None]
_Early: TypeAlias = list[tuple[Node[Any], tuple[str | None, ...]]]


class NodeRecord(NamedTuple):
    """A node; operands and results by name, None where they are absent."""

    op: Op
    operands: tuple[str | None, ...]
    names: tuple[str | None, ...]
    types: tuple[Type | None, ...]
    loc: Loc
    mode: str | None
    graphs: tuple[GraphRecord, ...]


class GraphRecord(NamedTuple):
    """A graph; ``inputs`` are names, types and attributes."""

    inputs: tuple[tuple[str, Type, Attributes | None], ...]
    nodes: tuple[NodeRecord, ...]
    outputs: tuple[str, ...]


class ModuleRecord(NamedTuple):
    """A module; its constants come first, as names, types and contents."""

    name: str
    opsets: dict[str, int]
    header: Attributes
    constants: tuple[tuple[str, TensorType, Data], ...]
    graph: GraphRecord


def clone(module: Module) -> Module:
    """A module that prints as the given one and shares nothing that can change with it.

    Contents of constants are shared, for they never change. A broken module (a value read before
    it is made) is copied as it is, so that it can be shown and reproduced. ``copy.deepcopy`` of
    a module is the same.
    """
    return rebuild(record(module))


def record(module: Module) -> ModuleRecord:
    """What a module holds, without edges."""
    constants = tuple((c.name, c.tensor, c.data) for c in module.constants.values())
    graph = _graph_record(module.graph)
    return ModuleRecord(module.name, module.opsets, module.header, constants, graph)


def _graph_record(graph: Graph) -> GraphRecord:
    return GraphRecord(
        tuple((v.name, v.type, graph.input_attrs.get(v.name)) for v in graph.inputs),
        tuple(_node_record(node) for node in graph.nodes()),
        tuple(v.name for v in graph.outputs),
    )


def _node_record(node: Node[Any]) -> NodeRecord:
    return NodeRecord(
        node.op,
        tuple([None if v is None else v.name for v in node.operands]),
        tuple([None if v is None else v.name for v in node.results]),
        tuple([None if v is None else v.type for v in node.results]),
        node.loc,
        node.mode,
        tuple(_graph_record(graph) for graph in node.graphs),
    )


def rebuild(whole: ModuleRecord) -> Module:
    """The module of a record; what can change is copied. Raises KeyError for an unknown name."""
    module = Module(whole.name, dict(whole.opsets), copy.deepcopy(whole.header))
    values: _Values = {None: None}
    for name, type, data in whole.constants:
        values[name] = module.add_constant(name, data, type)
    early: _Early = []
    outputs: list[tuple[Graph, tuple[str, ...]]] = []
    _fill(module.graph, whole.graph, values, early, outputs)
    for node, names in early:
        node.set_operands([values[name] for name in names])
    for graph, results in outputs:
        graph.set_outputs([v for name in results if (v := values[name]) is not None])
    return module


def _fill(
    graph: Graph,
    whole: GraphRecord,
    values: _Values,
    early: _Early,
    outputs: list[tuple[Graph, tuple[str, ...]]],
) -> None:
    """Make inputs and nodes; ``early`` are nodes that read what is made after them."""
    outputs.append((graph, whole.outputs))
    for name, type, attrs in whole.inputs:
        values[name] = graph.add_input(name, type, copy.deepcopy(attrs))
    for op, names, results, types, loc, mode, graphs in whole.nodes:
        inner = [Graph(graph.module) for _ in graphs]
        for nested, record in zip(inner, graphs, strict=True):
            _fill(nested, record, values, early, outputs)
        known = all(name in values for name in names)
        operands = [values[name] for name in names] if known else []
        node = graph.insert(op, operands, types, results, loc=loc, mode=mode, graphs=inner)
        if not known:
            early.append((node, names))
        values.update(zip(results, node.results, strict=True))
