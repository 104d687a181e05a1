"""fold-constants: what depends on constants alone is computed now, by onnxruntime."""

from __future__ import annotations

from typing import Any

from qdqc.diagnostics import QdqcError
from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.data import Data
from qdqc.ir.graph import Graph
from qdqc.ir.types import TensorType
from qdqc.ops import CASTS, Opaque
from qdqc.pipeline.pass_ import Pass, PassContext
from qdqc.rewrite.driver import erase_dead

__all__ = ["FoldConstants"]


class FoldConstants(Pass):
    """Compute nodes that read only constants, those of a graph in one session of onnxruntime.

    Nested graphs follow, each by itself: one that never runs may hold what can't be run. Left
    alone: random ops, casts of weights, opaque ops of other domains, and results that are more
    than ``limit`` bytes larger than what they are made of.
    """

    name = "fold-constants"

    limit: int = 1 << 20

    def run(self, graph: Graph, ctx: PassContext) -> int:
        changes = self._fold(graph, ctx)
        return changes + sum(self.run(g, ctx) for n in graph.nodes() for g in n.graphs)

    def _fold(self, graph: Graph, ctx: PassContext) -> int:
        ready = self._ready(graph)
        wanted = [r for n in ready for r in n.present_results if _is_read_outside(r, ready)]
        if not wanted:
            return 0
        from qdqc.runtime.sessions.fold import evaluate  # onnxruntime loads only when there is work

        try:
            arrays = evaluate(list(ready), [v.name for v in wanted])
        except QdqcError as error:
            ctx.warn(f"constants are not folded: {error.diagnostic.message}")
            return 0
        for value in wanted:
            _become_constant(value, arrays[value.name])
        erased = erase_dead(reversed(list(ready)))
        ctx.statistics["nodes folded"] += len(erased)
        return len(wanted)

    def _ready(self, graph: Graph) -> dict[Node[Any], None]:
        """Nodes that depend on constants alone, directly or through each other, in order."""
        ready: dict[Node[Any], None] = {}
        for node in graph.nodes():
            known = all(_is_known(v, ready) for v in node.present_operands)
            if known and node.present_operands and _is_pure(node) and self._is_small(node):
                ready[node] = None
        return ready

    def _is_small(self, node: Node[Any]) -> bool:
        sizes = [_bytes(v) for v in node.present_results]
        taken = sum(_bytes(v) or 0 for v in node.present_operands)
        return all(s is not None and s <= taken + self.limit for s in sizes)


def _is_pure(node: Node[Any]) -> bool:
    if node.graphs or node.op.random or isinstance(node.op, CASTS):
        return False
    return not isinstance(node.op, Opaque) or node.op.domain in ("", "ai.onnx")


def _is_known(value: Value, ready: dict[Node[Any], None]) -> bool:
    if isinstance(value, Constant):
        return not value.data.is_elided and value.tensor.quant is None
    return value.producer in ready


def _bytes(value: Value) -> int | None:
    if not isinstance(value.type, TensorType):
        return None
    size = value.type.size
    return size * max(1, value.type.elem.bits // 8) if isinstance(size, int) else None


def _is_read_outside(value: Value, ready: dict[Node[Any], None]) -> bool:
    """Whether the value must become a constant. A graph output stays what it is."""
    if value.is_output:
        return False
    return any(use.user not in ready for use in value.uses)


def _become_constant(value: Value, array: Any) -> None:
    module, name = value.module, value.name
    type = value.tensor
    value.rename(module.fresh_name(f"{name}_unfolded"))
    data = Data.of(array, type.elem)
    made = module.add_constant(name, data, TensorType(type.elem, data.shape))
    value.replace_uses(made)
