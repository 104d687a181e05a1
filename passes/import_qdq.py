"""import-qdq: quantize and dequantize nodes become types; the inverse of lower-to-qdq."""

from __future__ import annotations

from typing import Any

from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.data import Data
from qdqc.ir.graph import Graph
from qdqc.ir.op import Kind, QuantTraits
from qdqc.ir.types import Elem
from qdqc.ops import (
    CASTS,
    Dequantize,
    DynamicQuantizeLSTM,
    Opaque,
    QLinearConv,
    QLinearMatMul,
    Quantize,
)
from qdqc.pipeline.pass_ import Pass, PassContext
from qdqc.quant.arithmetic import quantize
from qdqc.quant.constants import moved_constants
from qdqc.quant.lowered import joint_name, stored_name, view_name
from qdqc.quant.targets.target import activations

__all__ = ["ImportQdq"]


class ImportQdq(Pass):
    """Read quantize and dequantize nodes as types: quantize(op(dequantize(x))) = op(x) : u8.

    A product takes the integers of every operand that it reads through a dequantize, where its
    weight is one of them; any other op that has an integer form does where all its operands and
    results are integers. Recurrent layers, and products in nested graphs, take those of weights
    alone. What stays float keeps its casts. A quantize of a float constant is
    computed, and a constant that is reshaped, transposed, cut or joined with others behind its
    dequantize is stored so. After ``lower-to-qdq`` it gives back what ``quantize`` made.
    """

    name = "import-qdq"

    def run(self, graph: Graph, ctx: PassContext) -> int:
        casts = [n for n in graph.nodes() if isinstance(n.op, Quantize)]
        stored = sum(_store(node) for node in casts)
        turned = sum(map(_move, list(graph.nodes())))
        raised = sum(_raise(node, ctx) for node in list(graph.walk()))
        _warn_of_foreign(graph, ctx)
        ctx.statistics["constants quantized"] += stored
        ctx.statistics["constants moved"] += turned
        ctx.statistics["nodes raised"] += raised
        return stored + turned + raised


def _warn_of_foreign(graph: Graph, ctx: PassContext) -> None:
    """Say which ops hold integers of another tool that types can't say."""
    ops = [n.op for n in graph.module.walk()]
    opaque = [op.type for op in ops if isinstance(op, Opaque) and op.domain == "com.microsoft"]
    foreign = sorted({t for t in opaque if t.startswith(("Q", "DynamicQuantize"))})
    native = (QLinearConv, QLinearMatMul, DynamicQuantizeLSTM)
    foreign += sorted({type(op).__name__ for op in ops if isinstance(op, native)})
    if foreign:
        ctx.warn(
            "integer ops of another tool stay as they came in, whatever the mode: "
            + ", ".join(foreign),
            None,
            "types can't say what they compute: quantize the float model instead",
        )


def _store(node: Node[Quantize]) -> int:
    """The integers of a float constant, as QuantizeLinear rounds and saturates them."""
    x, result = node.need("x"), node.result
    typed = result.tensor
    if not isinstance(x, Constant) or x.data.is_elided or result.is_output:
        return 0
    if typed.quant is None or not typed.elem.is_integer:
        return 0
    integers = quantize(x.data.array(), typed.quant, typed.elem)
    module = node.graph.module
    name = module.fresh_name(f"{x.name}_{typed.elem.text}")
    result.replace_uses(module.add_constant(name, Data.of(integers, typed.elem), typed))
    node.graph.erase(node)
    if not x.is_used:
        module.leave(x)
    return 1


def _move(node: Node[Any]) -> int:
    """op(dequantize(c)) = dequantize(op(c)) for an op that moves a constant's numbers about.

    Scales per axis move with their axis. A graph output stays.
    """
    views = [v for v in node.present_operands if _is_view(v)]
    if not views or any(r.is_output for r in node.present_results):
        return 0
    stored = moved_constants(node, [_source(v) for v in views])
    if stored is None:
        return 0
    for result, (data, typed) in zip(node.present_results, stored, strict=True):
        module = node.graph.module
        name = stored_name(module, result.name)
        _view_instead(node, result, module.add_constant(name, data, typed))
    node.graph.erase(node)
    for view in dict.fromkeys(views):
        source = _source(view)
        _drop(view)
        if not source.is_used and isinstance(source, Constant):
            source.module.leave(source)
    return 1


def _view_instead(node: Node[Any], result: Value, stored: Constant) -> None:
    """A dequantize of ``stored`` takes the place of a result, and its name."""
    graph, name = node.graph, result.name
    result.rename(graph.module.fresh_name(name))
    made = graph.insert(Dequantize(), [stored], [result.type], [name], loc=node.loc, before=node)
    result.replace_uses(made.result)


def _raise(node: Node[Any], ctx: PassContext) -> int:
    """Give a node the integers around it; 1 where it took them."""
    if isinstance(node.op, CASTS):
        return 0
    traits = node.traits
    views = {i: v for i, v in enumerate(node.operands) if v is not None and _is_view(v)}
    weights_only = bool(traits.stored) or node.graph.owner is not None
    if weights_only:
        places = {traits.weight, *traits.stored}
        views = {i: v for i, v in views.items() if i in places and _is_constant(_source(v))}
    if not views:
        return 0
    refusal = None if weights_only else _refusal(node, traits, views)
    if refusal is not None:
        ctx.decline("raise", node, refusal)
        return 0
    for index, view in views.items():
        node.set_operand(index, _source(view))
    for result in _float_results(node):
        if not weights_only and _is_quantized(result):
            _take_casts(node, result)
    for view in views.values():
        _drop(view)
    return 1


def _refusal(node: Node[Any], traits: QuantTraits, views: dict[int, Value]) -> str | None:
    """Why the casts around a node stay; None where it takes the integers."""
    if traits.kind is Kind.FLOAT:
        return f"'{node.op.name}' has no integer form"
    if traits.kind is Kind.WEIGHTED:
        return None if traits.weight in views else "its weight is float"
    for index in activations(node, traits):
        if index not in views:
            return f"it reads {node.operands[index]} in float"
    if traits.kind is Kind.PRODUCT:
        return None
    for result in _float_results(node):
        if not _is_quantized(result):
            return f"{result} is read in float"
        if traits.kind is Kind.PRESERVING and not _same_scale(views[0], result):
            return f"{result} has another scale than {views[0]}"
    return None


def _take_casts(node: Node[Any], result: Value) -> None:
    """The result becomes the integers that the casts behind it make."""
    module = node.graph.module
    stored = result.users[0].result
    typed, name = stored.tensor, joint_name(result, stored)
    for cast in result.users:
        node.loc = node.loc.merge(cast.loc)
        cast.result.replace_uses(result)
        node.graph.erase(cast)
    result.type = typed
    if result.name == name:
        return
    view = module.value(name)
    if view is not None:
        view.rename(view_name(module, name))
    result.rename(name)


def _drop(view: Value) -> None:
    """Forget a float view that nobody reads any more; its constant takes the name."""
    node = view.producer
    if node is None or node.erased or view.is_used:
        return
    stored, name = _source(view), view.name
    node.graph.erase(node)
    if isinstance(stored, Constant):
        stored.rename(name)


def _float_results(node: Node[Any]) -> list[Value]:
    return [r for r in node.present_results if r.tensor.elem is Elem.F32 and r.is_used]


def _is_view(value: Value) -> bool:
    """Whether a value is the float view of integers."""
    node = value.producer
    return node is not None and isinstance(node.op, Dequantize) and node.op == Dequantize()


def _is_constant(value: Value) -> bool:
    return isinstance(value, Constant)


def _source(view: Value) -> Value:
    assert view.producer is not None
    return view.producer.need("x")


def _is_quantized(result: Value) -> bool:
    """Whether every reader of a value is a quantize, all of one type."""
    if result.is_output or not all(isinstance(u.op, Quantize) for u in result.users):
        return False
    made = [u.result for u in result.users]
    types = {(m.tensor.elem, m.tensor.quant) for m in made}
    return len(types) == 1 and sum(m.is_output for m in made) <= 1


def _same_scale(view: Value, result: Value) -> bool:
    source, made = _source(view).tensor, result.users[0].result.tensor
    return (source.elem, source.quant) == (made.elem, made.quant)
