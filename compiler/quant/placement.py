"""Which nodes run in integers, and why the others do not.

Products with weights carry the gain; around them, elementwise and pooling ops go integer only
where integers come in and go out, so that no cast is bought that saves no float kernel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qdqc.ir.core import Node, Value
from qdqc.ir.graph import Graph
from qdqc.ir.op import Kind, QuantTraits
from qdqc.quant.refusals import mode_reason
from qdqc.quant.targets.target import Target

__all__ = ["Decision", "always_integer", "decide", "nested_decisions"]


@dataclass(frozen=True)
class Decision:
    """Whether a node is integer, whether its result is; ``reason`` says why it is float.

    ``rule`` is the target's rule that a node breaks, where the reason is such a one.
    """

    integer: bool
    traits: QuantTraits
    result: bool = False
    reason: str = ""
    rule: str = ""


def decide(
    graph: Graph, target: Target, modes: Mapping[Node[Any], str] | None = None
) -> dict[Node[Any], Decision]:
    """The placement of every node of the top graph. Nodes of mode other than INT8 stay float.

    ``modes`` asks what it would be if these nodes had other modes; nothing is changed.
    """
    asked = modes or {}
    traits = {n: n.traits for n in graph.nodes()}
    reasons: dict[Node[Any], str] = {}
    for node, seen in traits.items():
        mode = asked.get(node, node.mode)
        if mode != "INT8":
            reasons[node] = mode_reason(node, mode or "F32", target)
        elif (refusal := target.refusal(node, seen)) is not None:
            reasons[node] = refusal
    able = {n for n in traits if n not in reasons}
    fed = _fed(graph, able, traits, target)
    feeds = _feeds(graph, able, traits)
    decisions: dict[Node[Any], Decision] = {}
    for node, seen in traits.items():
        if node in reasons:
            decisions[node] = Decision(False, seen, reason=reasons[node])
        elif seen.kind is Kind.WEIGHTED:
            result = always_integer(node, target) or _quantized_result(
                node, able, fed, feeds, traits
            )
            decisions[node] = Decision(True, seen, result=result)
        elif node in fed and node in feeds:
            decisions[node] = Decision(True, seen, result=True)
        else:
            missing = "reads no" if node not in fed else "feeds no"
            reason = f"it {missing} integer node: casts would cost more than they save"
            decisions[node] = Decision(False, seen, reason=reason)
    return decisions


def nested_decisions(graph: Graph, target: Target) -> dict[Node[Any], Decision]:
    """Why nodes of nested graphs are float, by their modes: no activation is quantized there."""
    nested = (n for n in graph.walk() if n.graph is not graph)
    return {
        n: Decision(False, n.traits, reason=mode_reason(n, n.mode or "F32", target)) for n in nested
    }


def _main_operands(node: Node[Any], traits: QuantTraits) -> list[Value]:
    """Operands through which integers come in."""
    present = [v for v in node.operands[:1] if v is not None]
    return present if traits.kind is Kind.PRESERVING else list(node.present_operands)


def _fed(
    graph: Graph,
    able: set[Node[Any]],
    traits: dict[Node[Any], QuantTraits],
    target: Target,
) -> set[Node[Any]]:
    """Able nodes that read integers, directly or through other able nodes."""
    fed: set[Node[Any]] = set()
    for node in graph.nodes():
        if node not in able or traits[node].kind is Kind.WEIGHTED:
            continue
        for value in _main_operands(node, traits[node]):
            producer = value.producer
            if producer is None or producer not in able:
                continue
            weighted = traits[producer].kind is Kind.WEIGHTED
            if producer in fed or (weighted and always_integer(producer, target)):
                fed.add(node)
    return fed


def always_integer(node: Node[Any], target: Target) -> bool:
    """Whether an integer product gives integers whoever reads them.

    Saturation does a clamp for nothing, and runtimes know no integer kernel of a product with a
    float result and a clip, but for a Relu. A result in [0, 6] that the graph returns stays float.
    """
    if node.op.name not in target.float_result:
        return True
    clamp, result = node.op.clamp, node.result
    if clamp in (None, (0.0, math.inf)) or result.tensor.range is None:
        return False
    return clamp[0] < 0 or not result.is_output


def _feeds(
    graph: Graph, able: set[Node[Any]], traits: dict[Node[Any], QuantTraits]
) -> set[Node[Any]]:
    """Able nodes whose result an integer product reads, directly or through able nodes."""
    feeding: set[Node[Any]] = set()
    for node in reversed(list(graph.nodes())):
        if node not in able:
            continue
        for result in node.present_results:
            for use in result.uses:
                user = use.user
                if not isinstance(user, Node) or user not in able:
                    continue
                reads = traits[user].kind is Kind.WEIGHTED and use.index == 0
                passes = user in feeding and traits[user].kind is not Kind.WEIGHTED
                if reads or passes:
                    feeding.add(node)
    return feeding


def _quantized_result(
    node: Node[Any],
    able: set[Node[Any]],
    fed: set[Node[Any]],
    feeds: set[Node[Any]],
    traits: dict[Node[Any], QuantTraits],
) -> bool:
    """Whether an op that may give float had better give integers: all its readers take them.

    A reader that stays float would get numbers that were rounded for nothing; a result of unknown
    range has no integers.
    """

    def takes_integers(user: Node[Any]) -> bool:
        if user not in able:
            return False
        return traits[user].kind is Kind.WEIGHTED or (user in fed and user in feeds)

    result = node.result
    if result.tensor.range is None or result.is_output or not result.users:
        return False
    return all(map(takes_integers, result.users))
