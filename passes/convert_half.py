"""convert-half: nodes of mode F16 compute in half precision."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.data import Data
from qdqc.ir.graph import Graph
from qdqc.ir.types import Elem, TensorType
from qdqc.ops import CASTS, Cast, CastLike
from qdqc.pipeline.pass_ import Pass, PassContext

__all__ = ["ConvertHalf"]

_LARGEST = float(np.finfo(np.float16).max)

_BEYOND = "beyond the range of f16"


class ConvertHalf(Pass):
    """Let nodes of mode F16 read and give f16; casts stand where f32 begins and ends.

    Weights become f16. A node stays f32 where a constant or a calibrated range is beyond
    65504, where a graph is nested in it, and where its op has no form in half precision.
    """

    name = "convert-half"

    def run(self, graph: Graph, ctx: PassContext) -> int:
        work = _Conversion(graph)
        for node in [n for n in graph.nodes() if n.mode == "F16"]:
            reason = work.refusal(node)
            if reason is None:
                work.convert(node)
            elif reason == _BEYOND and node.traits.weight is not None:
                ctx.warn(f"'{node.name}' stays f32: half precision ends at {_LARGEST:g}", node)
            ctx.statistics[reason or "nodes in half precision"] += 1
        work.drop_casts()
        return work.changes + graph.module.drop_unused_constants()


@dataclass
class _Conversion:
    """``halves`` are the f16 forms of f32 values, ``casts`` the nodes that go back to f32."""

    graph: Graph
    changes: int = 0
    halves: dict[Value, Value] = field(default_factory=dict)
    casts: list[Node[Any]] = field(default_factory=list)

    def refusal(self, node: Node[Any]) -> str | None:
        """Why a node stays f32; None where it can be converted."""
        read = [v for v in node.present_operands if _is_f32(v)]
        if node.graphs or not read or isinstance(node.op, (Cast, CastLike, *CASTS)):
            return "without half precision"
        if not all(map(_fits, (*read, *node.present_results))):
            return _BEYOND
        types = [None if v is None else _half(v.type) for v in node.operands]
        try:
            node.op.infer(*types)
        except (TypeError, ValueError):
            return "without half precision"
        return None

    def convert(self, node: Node[Any]) -> None:
        for index, value in enumerate(node.operands):
            if value is not None and _is_f32(value):
                node.set_operand(index, self._half_of(value, node))
        for result in node.present_results:
            if _is_f32(result):
                self._give_back(node, result)
        self.changes += 1

    def _half_of(self, value: Value, before: Node[Any]) -> Value:
        present = self.halves.get(value)
        if present is not None:
            return present
        module = self.graph.module
        name = module.fresh_name(f"{value.name}_f16")
        if isinstance(value, Constant):
            array = value.data.array().astype(np.float16)
            made: Value = module.add_constant(name, Data.of(array))
        else:
            after = value.producer.next if value.producer is not None else None
            place = after or (next(self.graph.nodes()) if value.producer is None else before)
            made = self.graph.insert(
                Cast(to="f16"), [value], [_half(value.type)], [name], loc=before.loc, before=place
            ).result
        self.halves[value] = made
        return made

    def _give_back(self, node: Node[Any], result: Value) -> None:
        """The result becomes f16; a cast behind it takes over its name and its readers."""
        name, wanted, uses = result.name, result.type, result.uses
        module = self.graph.module
        result.rename(module.fresh_name(f"{name}_f16"))
        result.type = _half(wanted)
        cast = self.graph.insert(
            Cast(to="f32"), [result], [wanted], [name], loc=node.loc, before=node.next
        )
        for use in uses:
            use.take(cast.result)
        self.halves[cast.result] = result
        self.casts.append(cast)

    def drop_casts(self) -> None:
        """Forget casts to f32 that nobody reads."""
        for cast in self.casts:
            if not cast.result.is_used:
                self.graph.erase(cast)


def _is_f32(value: Value) -> bool:
    return value.elem is Elem.F32 and value.quant is None


def _half(type: Any) -> Any:
    """The type with f16 for f32; other types as they are."""
    is_f32 = isinstance(type, TensorType) and type.elem is Elem.F32 and type.quant is None
    return TensorType(Elem.F16, type.shape) if is_f32 else type


def _fits(value: Value) -> bool:
    """Whether the numbers of a value are known to lie within f16, as far as they are known."""
    if isinstance(value, Constant) and _is_f32(value):
        if value.data.is_elided:
            return False
        array = value.data.array()
        return bool(np.abs(array[np.isfinite(array)]).max(initial=0.0) <= _LARGEST)
    range = value.range
    return range is None or max(-range.min, range.max) <= _LARGEST
