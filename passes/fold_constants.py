"""fold-constants: what depends on constants alone is computed now, by onnxruntime."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from qdqc.diagnostics import QdqcError
from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.data import Data
from qdqc.ir.graph import Graph
from qdqc.ir.op import Kind
from qdqc.ir.types import TensorType
from qdqc.ops import CASTS, Opaque
from qdqc.pipeline.pass_ import Pass, PassContext
from qdqc.rewrite.driver import erase_dead

__all__ = ["FoldConstants"]


class FoldConstants(Pass):
    """Compute nodes that read only constants, those of a graph in one session of onnxruntime.

    Nested graphs follow, each by itself: one that never runs may hold what can't be run. Left
    alone: random ops, casts of weights, opaque ops of other domains, results that are more
    than ``limit`` bytes larger than what they are made of, and what would make the constants
    larger by more than ``growth`` bytes and a hundredth in all: a table that a few numbers
    generate stays generated. A weight may be a second form of a constant that others read.
    """

    name = "fold-constants"

    limit: int = 1 << 20
    growth: int = 1 << 12

    def run(self, graph: Graph, ctx: PassContext) -> int:
        changes = self._fold(graph, ctx)
        return changes + sum(self.run(g, ctx) for n in graph.nodes() for g in n.graphs)

    def _fold(self, graph: Graph, ctx: PassContext) -> int:
        ready = self._ready(graph)
        wanted = self._affordable(graph, ready) if ready else []
        if not wanted:
            return 0
        from qdqc.runtime.sessions.fold import evaluate  # onnxruntime loads only when there is work

        needed = _makers(wanted, ready)
        try:
            arrays = evaluate(needed, [v.name for v in wanted])
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

    def _affordable(self, graph: Graph, ready: dict[Node[Any], None]) -> list[Value]:
        """Values that become constants: those that are read outside, and what they are made of
        where they would take too much. Each constant pays for one value that is made of it.
        """
        stored = sum(c.data.nbytes for c in graph.module.constants.values())
        budget = self.growth + stored // 100
        spent: set[Constant] = set()
        waiting = sorted(_read_outside(ready), key=lambda v: _bytes(v) or 0)
        chosen: dict[Value, None] = {}
        for value in waiting:  # grows while it is gone through
            if value in chosen or value.is_output:
                continue
            sources = _sources(value, ready)
            freed = sum(c.data.nbytes for c in sources - spent if _is_freed(c, ready))
            size = _bytes(value) or 0
            growth = size - freed
            weighs = _is_weight(value) and size <= sum(c.data.nbytes for c in sources)
            if growth <= 0 or growth <= budget or weighs:
                budget -= 0 if weighs else max(0, growth)
                spent |= sources
                chosen[value] = None
            elif value.producer is not None:
                waiting += [v for v in value.producer.present_operands if v.producer in ready]
        return list(chosen)


def _read_outside(ready: dict[Node[Any], None]) -> list[Value]:
    """Results that nodes outside read; a graph output stays what it is."""
    results = (r for n in ready for r in n.present_results)
    return [r for r in results if any(use.user not in ready for use in r.uses)]


def _makers(values: Iterable[Value], ready: dict[Node[Any], None]) -> list[Node[Any]]:
    """The nodes that make some values, in order."""
    needed: set[Node[Any]] = set()
    waiting = list(values)
    while waiting:
        node = waiting.pop().producer
        if node is not None and node not in needed:
            needed.add(node)
            waiting += node.present_operands
    return [n for n in ready if n in needed]


def _sources(value: Value, ready: dict[Node[Any], None]) -> set[Constant]:
    """The constants that a value is made of."""
    read = (v for n in _makers([value], ready) for v in n.present_operands)
    return {v for v in read if isinstance(v, Constant)}


def _is_freed(constant: Constant, ready: dict[Node[Any], None]) -> bool:
    """Whether nobody reads a constant but nodes that may go."""
    return all(use.user in ready for use in constant.uses)


def _is_weight(value: Value) -> bool:
    """Whether a product has integers only where the value is a constant."""
    reads = ((u.user, u.index) for u in value.uses if isinstance(u.user, Node))
    return any(n.traits.kind is Kind.WEIGHTED and i == n.traits.weight for n, i in reads)


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


def _become_constant(value: Value, array: Any) -> None:
    module, name = value.module, value.name
    type = value.tensor
    value.rename(module.fresh_name(f"{name}_unfolded"))
    data = Data.of(array, type.elem)
    made = module.add_constant(name, data, TensorType(type.elem, data.shape))
    value.replace_uses(made)
