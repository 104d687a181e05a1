"""decompose-activations: gated activations in the parts that a target has integer kernels for."""

from __future__ import annotations

from typing import Any

from qdqc.ir.clone import clone
from qdqc.ir.core import Node, Value
from qdqc.ir.graph import Graph
from qdqc.ir.op import Op
from qdqc.ir.types import Range
from qdqc.ops import HardSigmoid, HardSwish, Mul, Sigmoid, Swish
from qdqc.pipeline.pass_ import Pass, PassContext
from qdqc.quant.placement import decide
from qdqc.quant.targets.target import target_named

__all__ = ["DecomposeActivations"]


class DecomposeActivations(Pass):
    """Write swish and hard_swish of mode INT8 as products, where these run in integers.

    swish(x) = x * sigmoid(x), hard_swish(x) = x * hard_sigmoid(x){1/6, 1/2}. An activation whose
    product the target would not run in integers stays whole: in float it has one kernel. For
    calibrated modules, between ``assign-precision`` and ``quantize``.
    """

    name = "decompose-activations"

    target: str = "ort-cpu"

    def run(self, graph: Graph, ctx: PassContext) -> int:
        if not any(map(_is_gated, graph.nodes())):
            return 0
        tried = clone(graph.module).graph
        for node in filter(_is_gated, list(tried.nodes())):
            _decompose(node)
        decisions = decide(tried, target_named(self.target))
        integer = {n.name for n, decision in decisions.items() if decision.integer}
        chosen = [n for n in graph.nodes() if _is_gated(n) and n.name in integer]
        for node in chosen:
            _decompose(node)
        ctx.statistics["activations in parts"] += len(chosen)
        return len(chosen)


def _is_gated(node: Node[Any]) -> bool:
    return node.mode == "INT8" and _gate(node.op) is not None


def _gate(op: Op) -> Op | None:
    """What x is multiplied by; None for an op that is not such a product."""
    if isinstance(op, HardSwish):
        return HardSigmoid(alpha=1 / 6, beta=0.5)
    return Sigmoid() if isinstance(op, Swish) and op.alpha == 1 else None


def _decompose(node: Node[Any]) -> None:
    """A product in the place of an activation; its result takes over the name."""
    gate, x, name = _gate(node.op), node.need("x"), node.name
    assert gate is not None
    factor = _made(node, gate, f"{name}_{gate.name}", x).result
    factor.type = factor.tensor.with_range(Range(0.0, 1.0, 1.0))
    product = _made(node, Mul(), f"{name}_{Mul.name}", x, factor).result
    node.result.replace_uses(product)
    node.graph.erase(node)
    product.rename(name)


def _made(node: Node[Any], op: Op, name: str, *operands: Value) -> Node[Any]:
    """A node before another, with its place and mode, and a result of the same type."""
    return node.graph.insert(
        op,
        operands,
        [node.result.type],
        [node.graph.module.fresh_name(name)],
        loc=node.loc,
        mode=node.mode,
        before=node,
    )
