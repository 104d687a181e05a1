"""eliminate-common-subexpressions: what is computed twice is computed once."""

from __future__ import annotations

from typing import Any

from compiler.ir.core import Constant, Node, Value
from compiler.ir.graph import Graph, Module
from compiler.ir.spelling import print_type
from compiler.ops import Opaque
from compiler.pipeline.pass_ import Pass, PassContext

__all__ = ["EliminateCommonSubexpressions"]


class EliminateCommonSubexpressions(Pass):
    """Merge equal constants, and nodes that apply the same op to the same operands.

    The first of two equal nodes stays. Random ops, opaque ones (they may have state) and nodes
    with nested graphs are left alone.
    """

    name = "eliminate-common-subexpressions"

    def run(self, graph: Graph, ctx: PassContext) -> int:
        constants = _merge_constants(graph.module)
        nodes = _merge_nodes(graph)
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


def _merge_nodes(graph: Graph) -> int:
    seen: dict[tuple[Any, ...], Node[Any]] = {}
    merged = 0
    for node in graph.nodes():
        for nested in node.graphs:
            merged += _merge_nodes(nested)
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
