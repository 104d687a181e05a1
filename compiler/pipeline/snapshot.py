"""What a module says, by the objects that say it: cheaper to take and compare than its text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

from qdqc.ir.graph import Graph, Module
from qdqc.ir.spelling import print_value

__all__ = ["Snapshot", "snapshot"]

Snapshot: TypeAlias = list[Any]


def snapshot(module: Module) -> Snapshot:
    """Equal for two states of a module between which nothing was changed.

    Ops, types, locations and contents never change themselves, so holding them is enough;
    comparing looks into them only where one was put in another's place. Contents that were put
    in the place of others count as changed, whatever they are.
    """
    parts: Snapshot = [module.name, print_value(module.header), dict(module.opsets)]
    for constant in module.constants.values():
        parts += [constant, constant.name, constant.type, constant.data]
    parts.extend(_graph(module.graph))
    return parts


def _graph(graph: Graph) -> Iterator[Any]:
    yield [(v, v.name, v.type, print_value(graph.input_attrs.get(v.name))) for v in graph.inputs]
    yield graph.outputs
    for node in graph.nodes():
        yield node, node.op, node.operands, node.mode, node.loc
        yield [r and (r, r.name, r.type) for r in node.results]
        for nested in node.graphs:
            yield from _graph(nested)
