"""eliminate-dead-code: what nobody reads goes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from qdqc.ir.core import Node, Value
from qdqc.ir.graph import Graph
from qdqc.ir.view import reads
from qdqc.ops import If, Loop, Scan
from qdqc.pipeline.pass_ import Pass, PassContext
from qdqc.rewrite.driver import erase_dead

__all__ = ["EliminateDeadCode"]

_MAY_CARRY_NOTHING = 11
"""The opset from which on a Loop may carry no value at all."""


class EliminateDeadCode(Pass):
    """Erase nodes and constants that nobody reads, and such results of If, Loop and Scan.

    What a loop carries from round to round goes when neither its last value nor any round's
    is read for something else.
    """

    name = "eliminate-dead-code"

    def run(self, graph: Graph, ctx: PassContext) -> int:
        nodes = results = 0
        while True:
            nodes += len(erase_dead(reversed(list(graph.walk()))))
            dropped = sum(_drop_results(node) for node in graph.walk())
            if not dropped:
                break
            results += dropped
        constants = graph.module.drop_unused_constants()
        ctx.statistics["nodes erased"] += nodes
        ctx.statistics["results dropped"] += results
        ctx.statistics["constants dropped"] += constants
        return nodes + results + constants


def _drop_results(node: Node[Any]) -> int:
    """Drop what nobody reads of a node with nested graphs; how many results."""
    if not isinstance(node.op, If | Loop | Scan):
        return 0
    unread = {i for i, r in enumerate(node.results) if r is None or not r.is_used}
    if isinstance(node.op, If):
        first, carried = 0, 0
    elif isinstance(node.op, Loop):
        first, carried = 1, len(node.operands) - 2
        if node.graph.module.opsets.get("", _MAY_CARRY_NOTHING) < _MAY_CARRY_NOTHING:
            unread.discard(0)
    else:
        first, carried = 0, len(node.operands) - node.op.num_scan_inputs
    if unread and carried > 0:
        unread -= _needed(node.graphs[0], first, carried, unread)
    if not unread:
        return 0
    if isinstance(node.op, Scan):
        node.op = _kept_axes(node.op, len(node.results) - carried, {i - carried for i in unread})
    node.drop_results(unread)
    for graph in node.graphs:
        graph.set_outputs([v for i, v in enumerate(graph.outputs) if i - first not in unread])
        erase_dead(reversed(list(graph.walk())))
    gone = {i for i in unread if i < carried}
    before = 2 if isinstance(node.op, Loop) else 0
    node.set_operands([v for i, v in enumerate(node.operands) if i - before not in gone])
    for graph in node.graphs:
        graph.drop_inputs({i + before for i in gone})
    return len(unread)


def _needed(body: Graph, first: int, carried: int, unread: Collection[int]) -> set[int]:
    """Which of the first results, carried from round to round, some round reads for the rest.

    ``first`` is the place of the first carried value among the outputs of the body.
    """
    inputs = body.inputs[-carried:] if first else body.inputs[:carried]
    live = set(range(len(body.outputs) - first)) - set(unread)
    while True:
        seen: set[Value] = {body.outputs[i + first] for i in live} | set(body.outputs[:first])
        for node in reversed(list(body.nodes())):
            if not seen.isdisjoint(node.present_results):
                seen.update(reads(node))
        more = live | {i for i, value in enumerate(inputs) if value in seen}
        if more == live:
            return live
        live = more


def _kept_axes(op: Scan, scanned: int, dropped: Collection[int]) -> Scan:
    """The op without axes and directions of results that are gone."""

    def kept(stated: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(x for i, x in enumerate(stated) if i not in dropped)

    if all(i < 0 or i >= scanned for i in dropped):
        return op
    return replace(
        op,
        scan_output_axes=kept(op.scan_output_axes),
        scan_output_directions=kept(op.scan_output_directions),
    )
