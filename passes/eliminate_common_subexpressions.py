"""eliminate-common-subexpressions: what is computed twice is computed once."""

from __future__ import annotations

from collections import ChainMap
from typing import Any, TypeAlias

from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.graph import Graph, Module
from qdqc.ir.spelling import print_type
from qdqc.ops import Opaque
from qdqc.pipeline.pass_ import Pass, PassContext

__all__ = ["EliminateCommonSubexpressions"]

Seen: TypeAlias = "ChainMap[tuple[Any, ...], Node[Any]]"


class EliminateCommonSubexpressions(Pass):
    """Merge equal constants, and nodes that apply the same op to the same operands.

    The first of two equal nodes stays, for the nested graphs behind it too. Random ops, opaque
    ones (they may have state) and nodes with nested graphs are left alone.
    """

    name = "eliminate-common-subexpressions"

    def run(self, graph: Graph, ctx: PassContext) -> int:
        constants = _merge_constants(graph.module)
        nodes = _merge_nodes(graph, ChainMap())
        ctx.statistics["constants merged"] += constants
        ctx.statistics["nodes merged"] += nodes
        return constants + nodes


def _merge_constants(module: Module) -> int:
    seen: dict[tuple[str, str], Constant] = {}
    merged = 0
    for constant in list(module.constants.values()):
        if constant.data.is_elided or constant.is_output:
            continue
        key = (print_type(constant.type), constant.data.digest)
        first = seen.setdefault(key, constant)
        if first is not constant:
            constant.replace_uses(first)
            module.leave(constant)
            merged += 1
    return merged


def _merge_nodes(graph: Graph, seen: Seen) -> int:
    """Merge with what was ``seen`` so far, in this graph or around it."""
    merged = 0
    for node in graph.nodes():
        for nested in node.graphs:
            merged += _merge_nodes(nested, seen.new_child())
        if node.graphs or node.op.random or isinstance(node.op, Opaque):
            continue
        types = tuple(print_type(r.type) for r in node.present_results)
        present = tuple(r is not None for r in node.results)
        key = (node.op, node.operands, node.mode, types, present)
        first = seen.setdefault(key, node)
        if first is not node and _take_over(first, node):
            merged += 1
    return merged


def _take_over(first: Node[Any], second: Node[Any]) -> bool:
    """Let the first node serve the readers of the second. Graph outputs keep their names."""
    if first.graph is not second.graph and any(r.is_output for r in second.present_results):
        return False
    pairs = list(zip(first.present_results, second.present_results, strict=True))
    if any(b.is_output and a.is_output for a, b in pairs):
        return False
    renames: list[tuple[Value, str]] = []
    for kept, gone in pairs:
        if gone.is_output:
            renames.append((kept, gone.name))
        gone.replace_uses(kept)
    second.graph.erase(second)
    first.loc = first.loc.merge(second.loc)
    for value, name in renames:
        value.rename(name)
    return True
