"""leave-float: nodes that integers would slow down stay float."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from qdqc.diagnostics import QdqcError
from qdqc.ir.clone import clone
from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.graph import Graph, Module
from qdqc.ir.op import Kind
from qdqc.ir.types import TensorType
from qdqc.pipeline.manager import PassManager
from qdqc.pipeline.pass_ import Pass, PassContext
from qdqc.pipeline.spec import resolve
from qdqc.quant.cheapest import Prices, cheapest, cost_of
from qdqc.quant.placement import decide
from qdqc.quant.qtable import EMPTY, Qtable, load_qtable, plan
from qdqc.quant.targets.target import Target, target_named

__all__ = ["LeaveFloat"]

_SHARE = 0.02
"""Of the time in integers that all has to be saved together."""
_LEAST = 50.0
"""Microseconds that it has to be."""


class LeaveFloat(Pass):
    """Give mode F32 to nodes of mode INT8 that take longer in integers, their casts included.

    Thin first convolutions, those of one channel, narrow groups and what lies between them, by the
    target's ``costs``: the placement of least cost is cut, and taken where it saves 2 % of the
    integer kernels' time, and 50 microseconds. Nodes that a qtable names, the file of the option
    or the caller's, keep their mode; those it takes out of INT8 take no others with them, so that
    a search finds what each of them does. Sizes that the types leave open are those of the table's
    samples; where they are not known, nodes stay integer. For calibrated modules whose
    activations are in parts, before ``quantize``.
    """

    name = "leave-float"

    target: str = "ort-cpu"
    qtable: str = ""

    def run(self, graph: Graph, ctx: PassContext) -> int:
        target = target_named(self.target)
        if target.costs is None:
            return 0
        shapes = _shapes(graph.module, _sample(ctx))
        costs = {n: c for n in graph.nodes() if (c := target.costs.node(n, shapes)) is not None}
        qtable = load_qtable(self.qtable) if self.qtable else ctx.qtable
        named = _named(graph, qtable)
        free = {n: "INT8" for n in graph.nodes() if named[n.name] not in ("", "INT8")}
        prices = _prices(graph, target, costs, shapes, named)
        decisions = decide(graph, target, free)
        modes, saved = _cheaper(graph, target, prices, free)
        whole = sum(costs[n][1] for n, d in decisions.items() if d.integer and n in costs)
        if saved < max(_LEAST, _SHARE * whole):
            return 0
        modes = {node: mode for node, mode in modes.items() if not named[node.name]}
        for node, mode in modes.items():
            node.mode = mode
            ctx.reasons[node.name] = _reason(costs.get(node))
        ctx.statistics["nodes left float by cost"] += len(modes)
        return len(modes)


def _cheaper(
    graph: Graph, target: Target, prices: Prices, free: Mapping[Node[Any], str]
) -> tuple[dict[Node[Any], str], float]:
    """The modes of those islands of float nodes that make it cheaper, and what they save.

    Placement may take more nodes out with one, which then read or feed no integers; where that
    costs more than the island saves, as it does where a qtable names them, it is left out.
    """
    decisions = decide(graph, target, free)
    modes: dict[Node[Any], str] = {}
    before = cost = cost_of(target, decisions, prices)
    for island in _islands(graph, cheapest(graph, target, decisions, prices)):
        more = modes | dict.fromkeys(island, "F32")
        behind = cost_of(target, decide(graph, target, {**free, **more}), prices)
        if behind < cost:
            modes, cost = more, behind
    return modes, before - cost


def _islands(graph: Graph, floats: Collection[str]) -> list[list[Node[Any]]]:
    """Float nodes by what they share: those that read or give the same value are together."""
    import networkx

    shared: Any = networkx.Graph()
    nodes = [n for n in graph.nodes() if n.name in floats]
    for node in nodes:
        values = (v for v in node.present_operands if not isinstance(v, Constant))
        shared.add_edges_from((node, v) for v in (*values, *node.present_results))
    parts = [set[Any](part) for part in networkx.connected_components(shared)]
    return [[n for n in nodes if n in part] for part in parts]


def _named(graph: Graph, qtable: Qtable | None) -> dict[str, str]:
    """The modes that a qtable gives to nodes and to the parts that were made of them."""
    lines = (replace(line, optional=True) for line in (qtable or EMPTY).lines)
    modes = plan(graph, "", Qtable(tuple(lines)))
    places = {n.loc.names: modes[n.name] for n in graph.nodes() if n.loc.names and modes[n.name]}
    return {n.name: modes[n.name] or places.get(n.loc.names, "") for n in graph.nodes()}


def _sample(ctx: PassContext) -> dict[str, Any]:
    """A sample that the table keeps; empty where it keeps none, or lost them."""
    with contextlib.suppress(QdqcError):
        kept = ctx.table.kept() if ctx.table is not None else None
        return {} if kept is None or not kept.arrays else dict(kept.arrays[0])
    return {}


def _shapes(module: Module, sample: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shapes of values that follow from the types, and from the sizes of a sample."""
    sized = clone(module)
    for value in sized.graph.inputs:
        if value.name in sample:
            value.type = value.tensor.with_shape(np.shape(sample[value.name]))
    with contextlib.suppress(QdqcError):  # a branch that is never taken may not fit the sizes
        PassManager(resolve("infer-shapes", {}), verify_each=False).run(sized)
    graph = sized.graph
    values = [*graph.inputs, *(r for n in graph.nodes() for r in n.present_results)]
    tensors = [v for v in values if isinstance(v.type, TensorType)]
    return {v.name: v.tensor.static_shape for v in tensors if v.tensor.static_shape is not None}


def _reason(cost: tuple[float, float] | None) -> str:
    if cost is not None and cost[0] < cost[1]:
        return f"integers would take about {cost[1]:.0f} us, float {cost[0]:.0f} us"
    return "its neighbours are float: casts would take more than its integer kernel saves"


def _prices(
    graph: Graph,
    target: Target,
    costs: dict[Node[Any], tuple[float, float]],
    shapes: dict[str, tuple[int, ...]],
    named: dict[str, str],
) -> Prices:
    """In microseconds. A node that a qtable makes INT8, or of which nothing is known, stays so."""
    assert target.costs is not None
    most = 1.0 + sum(max(cost) for cost in costs.values())
    integer = {n.name: cost[1] - cost[0] for n, cost in costs.items()}
    for node in graph.nodes():
        computes = node.traits.kind in (Kind.WEIGHTED, Kind.ARITHMETIC)
        if named[node.name] == "INT8" or (computes and node not in costs):
            integer[node.name] = -most
    values: list[Value] = [*graph.inputs, *(r for n in graph.nodes() for r in n.present_results)]
    sized = [(v, shapes[v.name]) for v in values if v.name in shapes]
    quantized = {v.name: target.costs.quantized(v, shape) for v, shape in sized}
    dequantized = {v.name: target.costs.dequantized(v, shape) for v, shape in sized}
    return Prices(integer, quantized, dequantized)
