"""widen-halves: what computes in f16 or bf16 computes in f32, until a deployment chooses."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.data import Data, Widened
from qdqc.ir.fields import Flat
from qdqc.ir.graph import Graph
from qdqc.ir.op import Op
from qdqc.ir.types import Elem, TensorType, Type
from qdqc.ops import BitCast, Cast, Opaque
from qdqc.ops.onnx_table import elem_code
from qdqc.pipeline.pass_ import Pass, PassContext

__all__ = ["WidenHalves"]

_HALVES = (Elem.F16, Elem.BF16)
_CODES = {elem_code(elem) for elem in _HALVES}
_TYPE_ATTRIBUTES = ("dtype", "output_datatype", "output_dtype", "to")
_AT_ONCE = 1 << 20
"""Bytes up to which a constant is widened here and now."""

_KNOWN_DOMAINS = ("", "ai.onnx", "com.microsoft")


class WidenHalves(Pass):
    """Widen a graph of f16 or bf16 to f32, so that it can be calibrated and quantized as any other.

    Inputs and outputs keep their types: casts stand behind and before them. So they do around what
    can't be widened: sequences and optionals of halves, the bits of a half, and ops of foreign
    domains. Modes then say what computes in f16: convert-half is the way back.
    """

    name = "widen-halves"

    def run(self, graph: Graph, ctx: PassContext) -> int:
        values = [v for v in _values(graph) if _is_half(v.type)]
        if all(map(_is_settled, values)):
            return 0
        if any(isinstance(v, Constant) and v.data.is_elided for v in values):
            ctx.warn("nothing is widened to f32: the contents of constants were elided")
            return 0
        work = _Widening(graph)
        work.widen(graph)
        ctx.statistics["values widened"] += len(work.before)
        return max(1, len(work.before)) + graph.module.drop_unused_constants()


def _is_settled(value: Value) -> bool:
    """Whether a half is there only for a graph's border, and for nodes that stay as they are."""
    if isinstance(value, Constant):
        return value.is_output and not value.users
    nodes = [*value.users, *([value.producer] if value.producer is not None else [])]
    return all(isinstance(n.op, Cast) or _stays(n) for n in nodes)


def _stays(node: Node[Any]) -> bool:
    """Whether a node can't be widened: its op, or halves in a sequence, which no cast reaches."""
    values = (*node.present_operands, *node.present_results)
    return _widened(node.op) is None or any(_holds_halves(v.type) for v in values)


def _values(graph: Graph) -> list[Value]:
    inner = [v for n in graph.walk() for v in (*n.present_results, *_inputs(n))]
    return [*graph.inputs, *inner, *graph.module.constants.values()]


def _inputs(node: Node[Any]) -> list[Value]:
    return [v for g in node.graphs for v in g.inputs]


@dataclass
class _Widening:
    """``before`` has the element types of values that are f32 now, ``narrow`` their narrow forms,
    ``wide`` the f32 forms of constants.
    """

    top: Graph
    before: dict[Value, Elem] = field(default_factory=dict)
    wide: dict[Constant, Constant] = field(default_factory=dict)
    narrow: dict[tuple[Value, Graph], Value] = field(default_factory=dict)

    def widen(self, graph: Graph) -> None:
        """A graph that takes and gives f32 but for the border of the top graph."""
        for value in graph.inputs:
            if not _is_half(value.type):
                continue
            if graph is self.top:
                self._cast_behind(value, graph, next(graph.nodes(), None))
            else:
                self._retype(value)
        for node in list(graph.nodes()):
            if not self._widen_node(node):
                self._keep_node(node)
        for index, value in enumerate(graph.outputs):
            if graph is not self.top and isinstance(value, Constant) and _is_half(value.type):
                graph.set_output(index, self._wide_constant(value))
            elif graph is self.top and value in self.before:
                self._cast_output(index, value)

    def _retype(self, value: Value) -> None:
        elem = value.elem
        assert elem is not None
        self.before[value] = elem
        value.type = _wide(value.type)

    def _widen_node(self, node: Node[Any]) -> bool:
        """Whether a node computes in f32 from now on."""
        read = [v for v in node.present_operands if _is_half(v.type) or v in self.before]
        made = [r for r in node.present_results if _is_half(r.type)]
        inner = any(_is_half(v.type) for v in _inputs(node)) or bool(node.graphs)
        if not read and not made and not inner:
            return True
        op = None if _stays(node) else _widened(node.op)
        if op is None:
            return False
        before, operands = node.op, node.operands
        types = [None if r is None else r.type for r in node.results]
        node.op = op
        for index, value in enumerate(operands):
            if isinstance(value, Constant) and _is_half(value.type):
                node.set_operand(index, self._wide_constant(value))
        if not _gives(node, [None if t is None else _wide(t) for t in types]):
            node.op = before
            node.set_operands(operands)
            return False
        for nested in node.graphs:
            self.widen(nested)
        for result in made:
            self._retype(result)
        return True

    def _keep_node(self, node: Node[Any]) -> None:
        """A node that stays as it is, and all that is in it: casts stand around it."""
        graph = node.graph
        for nested in (*node.graphs, *(g for n in node.graphs for m in n.walk() for g in m.graphs)):
            for inner in list(nested.nodes()):
                self._narrow_operands(inner)
            for index, value in enumerate(nested.outputs):
                if value in self.before:
                    nested.set_output(index, self._narrow(value, nested, None))
        self._narrow_operands(node)
        for result in node.present_results:
            if _is_half(result.type):
                self._cast_behind(result, graph, node.next)

    def _narrow_operands(self, node: Node[Any]) -> None:
        for index, value in enumerate(node.operands):
            if value is not None and value in self.before:
                node.set_operand(index, self._narrow(value, node.graph, node))

    def _narrow(self, value: Value, graph: Graph, place: Node[Any] | None) -> Value:
        """The value as it was before, by a cast in the graph that reads it."""
        made = self.narrow.get((value, graph))
        if made is None:
            elem = self.before[value]
            made = _cast(graph, value, elem, f"{value.name}_{elem.text}", place)
            self.narrow[value, graph] = made
        return made

    def _cast_behind(self, value: Value, graph: Graph, place: Node[Any] | None) -> None:
        """Readers take the value as f32; graph outputs take it as it is."""
        elem = value.elem
        assert elem is not None
        uses = [u for u in value.uses if isinstance(u.user, Node)]
        made = _cast(graph, value, Elem.F32, f"{value.name}_f32", place)
        self.before[made] = elem
        self.narrow[made, graph] = value
        for use in uses:
            use.take(made)

    def _cast_output(self, index: int, value: Value) -> None:
        """An output of the top graph keeps its name and its type."""
        known = self.narrow.get((value, self.top))
        if known is not None and (known.is_output or known.is_input):
            self.top.set_output(index, known)
            return
        name, elem = value.name, self.before[value]
        value.rename(value.module.fresh_name(f"{name}_f32"))
        made = _cast(self.top, value, elem, name, None)
        self.narrow[value, self.top] = made
        self.top.set_output(index, made)

    def _wide_constant(self, constant: Constant) -> Constant:
        made = self.wide.get(constant)
        if made is None:
            module, name = constant.module, constant.name
            constant.rename(module.fresh_name(f"{name}_{constant.tensor.elem.text}"))
            made = module.add_constant(name, _widened_data(constant.data))
            self.wide[constant] = made
        return made


def _cast(graph: Graph, value: Value, elem: Elem, name: str, place: Node[Any] | None) -> Value:
    loc = value.producer.loc if value.producer is not None else None
    where: dict[str, Any] = {} if loc is None else {"loc": loc}
    type_ = TensorType(elem, value.tensor.shape)
    fresh = graph.module.fresh_name(name)
    made = graph.insert(Cast(to=elem.text), [value], [type_], [fresh], before=place, **where)
    return made.result


def _is_half(type_: Type) -> bool:
    return isinstance(type_, TensorType) and type_.elem in _HALVES and type_.quant is None


def _holds_halves(type_: Type) -> bool:
    """Whether halves are inside a sequence or an optional, which no cast reaches."""
    while not isinstance(type_, TensorType):
        type_ = type_.item
        if _is_half(type_):
            return True
    return False


def _wide(type_: Type) -> Type:
    if not isinstance(type_, TensorType) or not _is_half(type_):
        return type_
    return TensorType(Elem.F32, type_.shape)


def _widened_data(data: Data) -> Data:
    wide = Widened(data)
    return wide if wide.nbytes > _AT_ONCE else Data.of(wide.array())


def _gives(node: Node[Any], wanted: list[Type | None]) -> bool:
    """Whether the node gives results of these element types, as far as its op tells."""
    if node.graphs:
        return True
    try:
        types = node.op.infer_node(node)
    except (TypeError, ValueError):
        return False
    pairs = zip(types, wanted, strict=False)
    tensors = [(a, b) for a, b in pairs if isinstance(a, TensorType) and isinstance(b, TensorType)]
    return all(a.elem is b.elem for a, b in tensors)


def _widened(op: Op) -> Op | None:
    """The op with f32 where it names or holds halves; None where it can't be had."""
    if isinstance(op, BitCast):
        return None
    if isinstance(op, Opaque):
        if op.domain not in _KNOWN_DOMAINS or op.graph_names:
            return None
        return replace(op, attrs=Flat((n, _attribute(n, v)) for n, v in op.attrs))
    facts, changes = op.onnx, dict[str, Any]()
    for name in op.__dataclass_fields__:
        value = getattr(op, name)
        if isinstance(value, Data) and value.elem in _HALVES:
            changes[name] = _widened_data(value)
        elif facts is not None and name in facts.elems and value in {e.text for e in _HALVES}:
            changes[name] = Elem.F32.text
    return replace(op, **changes) if changes else op


def _attribute(name: str, value: Any) -> Any:
    if isinstance(value, Data) and value.elem in _HALVES:
        return _widened_data(value)
    return elem_code(Elem.F32) if name in _TYPE_ATTRIBUTES and value in _CODES else value
