"""convert-half: nodes of mode F16 compute in half precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.data import Data
from qdqc.ir.excerpt import excerpt
from qdqc.ir.graph import Graph
from qdqc.ir.types import Elem, TensorType
from qdqc.ops import (
    CASTS,
    Cast,
    CastLike,
    DynamicQuantizeLSTM,
    MeanVarianceNormalization,
    Opaque,
    ScatterElements,
    ScatterND,
)
from qdqc.pipeline.pass_ import Pass, PassContext

__all__ = ["ConvertHalf"]

_LARGEST = float(np.finfo(np.float16).max)

_BEYOND = "beyond the range of f16"

_FLOAT_ONLY = (*CASTS, Opaque, DynamicQuantizeLSTM, MeanVarianceNormalization)
"""ONNX writes the last one out with constants of float32, whatever the type of its operand."""


class ConvertHalf(Pass):
    """Let nodes of mode F16 read and give f16; casts stand where f32 begins and ends.

    Weights become f16. Operands that ONNX has in f32 only stay so beside the others: the scales of
    a Resize. A node stays f32 where a constant or a calibrated range is beyond 65504, where a graph
    is nested in it, and where its op has no form in half precision. A graph that takes and gives
    f16 itself has no casts left at its border.
    """

    name = "convert-half"

    def run(self, graph: Graph, ctx: PassContext) -> int:
        work = _Conversion(graph, beyond=_beyond(graph))
        for node in [n for n in graph.nodes() if n.mode == "F16"]:
            reason = work.convert(node)
            if reason == _BEYOND and node.traits.weight is not None:
                ctx.warn(f"'{node.name}' stays f32: half precision ends at {_LARGEST:g}", node)
            ctx.statistics[reason or "nodes in half precision"] += 1
        work.drop_casts()
        return work.changes + graph.module.drop_unused_constants()


@dataclass
class _Conversion:
    """``halves`` are the f16 forms of f32 values, ``casts`` the nodes that go back to f32.

    ``beyond`` are values that hold numbers which f16 has not.
    """

    graph: Graph
    beyond: set[Value]
    changes: int = 0
    halves: dict[Value, Value] = field(default_factory=dict)
    casts: list[Node[Any]] = field(default_factory=list)

    def convert(self, node: Node[Any]) -> str | None:
        """Let a node compute in f16; why it stays f32 where it does."""
        if isinstance(node.op, Cast | CastLike):
            return self._cast(node)
        chosen = _operands(node)
        if node.graphs or not chosen or isinstance(node.op, _FLOAT_ONLY):
            return "without half precision"
        values = [*(node.operands[i] for i in chosen), *node.present_results]
        if not all(map(_fits, values)) or not self.beyond.isdisjoint(values):
            return _BEYOND
        results = _results(node, chosen)
        if results is None:
            return "without half precision"
        for index in chosen:
            value = node.operands[index]
            assert value is not None
            node.set_operand(index, self._half_of(value, node))
        for result in results:
            self._give_back(node, result)
        self.changes += 1
        return None

    def _cast(self, node: Node[Any]) -> str:
        """A cast from f16, or to it, is where the float32 part of a graph of f16 ends."""
        x, result = node.need("x"), node.result
        if x.elem is Elem.F16 and _is_f32(result):
            self.halves[result] = x
            self.casts.append(node)
        half = self.halves.get(x)
        if half is not None and result.elem is Elem.F16:
            self._border(node, half)
        return "casts"

    def _border(self, cast: Node[Any], half: Value) -> None:
        """What a cast to f16 gives was there already; a graph output keeps its name."""
        result, name = cast.result, cast.result.name
        fixed = result.is_output
        movable = half.producer is not None and half.graph is self.graph and not half.is_output
        if fixed and not movable:
            return
        result.replace_uses(half)
        self.graph.erase(cast)
        if fixed:
            half.rename(name)
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


def _operands(node: Node[Any]) -> list[int]:
    """The f32 operands that may be f16 as well."""
    from qdqc.onnx_io.spell import operands_taking  # onnx loads only when there is work

    read = [i for i, v in enumerate(node.operands) if v is not None and _is_f32(v)]
    taking = operands_taking(node, Elem.F16) if read else set[int]()
    return [i for i in read if i in taking]


def _results(node: Node[Any], chosen: Sequence[int]) -> list[Value] | None:
    """The results that are f16 when these operands are; None where ONNX has no such node."""
    from qdqc.onnx_io.opsets import is_spellable

    operands = {node.operands[i] for i in chosen}
    present = node.present_results
    trial = excerpt([node], [v.name for v in present])
    copy = next(trial.graph.nodes())
    for value, like in zip(node.operands, copy.operands, strict=True):
        if value in operands and like is not None:
            like.type = _half(like.type)
    try:
        types = copy.op.infer_node(copy)
    except (TypeError, ValueError):
        return None
    if isinstance(node.op, ScatterElements | ScatterND) and node.op.reduction != "none":
        return None  # onnxruntime's f16 kernels only replace
    halves: list[Value] = []
    for result, like, type in zip(node.results, copy.results, types, strict=False):
        is_half = isinstance(type, TensorType) and type.elem is Elem.F16
        if result is None or like is None or not (is_half and _is_f32(result)):
            continue
        like.type = _half(like.type)
        halves.append(result)
    return halves if is_spellable(copy) else None


def _beyond(graph: Graph) -> set[Value]:
    """What nodes make of constants alone, one of which is beyond the range of f16: a mask."""
    beyond: set[Value] = set()
    generated: set[Value] = set()
    for node in graph.nodes():
        read = node.present_operands
        if node.graphs or not all(isinstance(v, Constant) or v in generated for v in read):
            continue
        generated.update(node.present_results)
        stated = [getattr(node.op, name) for name in node.op.__dataclass_fields__]
        fits = all(_in_range(d) for d in stated if isinstance(d, Data) and d.elem is Elem.F32)
        if not (fits and all(map(_fits, read)) and beyond.isdisjoint(read)):
            beyond.update(node.present_results)
    return beyond


def _is_f32(value: Value) -> bool:
    return value.elem is Elem.F32 and value.quant is None


def _half(type: Any) -> Any:
    """The type with f16 for f32; other types as they are."""
    is_f32 = isinstance(type, TensorType) and type.elem is Elem.F32 and type.quant is None
    return TensorType(Elem.F16, type.shape) if is_f32 else type


def _fits(value: Value | None) -> bool:
    """Whether the numbers of a value are known to lie within f16, as far as they are known."""
    if isinstance(value, Constant) and _is_f32(value):
        return _in_range(value.data)
    range = None if value is None else value.range
    return range is None or max(-range.min, range.max) <= _LARGEST


def _in_range(data: Data) -> bool:
    """Whether the finite numbers of a constant are at hand, and f16 has them."""
    if data.is_elided:
        return False
    array = data.array()
    return bool(np.abs(array[np.isfinite(array)]).max(initial=0.0) <= _LARGEST)
