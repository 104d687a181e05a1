"""move-transposes: whole regions change their layout where that leaves fewer transposes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.data import Data
from qdqc.ir.graph import Graph
from qdqc.ir.op import Op
from qdqc.ir.types import TensorType
from qdqc.ops import Concat, Hardmax, LogSoftmax, Softmax, Transpose
from qdqc.pipeline.pass_ import Pass, PassContext
from qdqc.rewrite.driver import erase_dead

__all__ = ["MoveTransposes"]

_Perm = tuple[int, ...]

_AXIS = (Concat, Hardmax, LogSoftmax, Softmax)
"""What joins a region beside elementwise ops: ops that name one axis."""


@dataclass
class _Region:
    """Nodes that are joined by values and work in any layout, in graph order."""

    nodes: list[Node[Any]]
    inside: set[Node[Any]] = field(init=False)

    def __post_init__(self) -> None:
        self.inside = set(self.nodes)

    def inputs(self) -> list[Value]:
        """Values that come in, each once; constants are none."""
        values = dict.fromkeys(v for node in self.nodes for v in node.present_operands)
        return [v for v in values if not isinstance(v, Constant) and v.producer not in self.inside]

    def readers(self) -> list[tuple[Value, list[Node[Any]], bool]]:
        """For each value that leaves: its Transposes, and whether anything else reads it."""
        leaving: list[tuple[Value, list[Node[Any]], bool]] = []
        for node in self.nodes:
            value = node.result
            outside = [user for user in value.users if user not in self.inside]
            turned = [u for u in outside if isinstance(u.op, Transpose) and u.graph is node.graph]
            if outside or value.is_output:
                leaving.append((value, turned, value.is_output or len(turned) < len(outside)))
        return leaving

    def candidates(self) -> list[_Perm]:
        """Permutations that would take a transpose away, each once."""
        perms: dict[_Perm, None] = {}
        for value in self.inputs():
            if value.producer is not None and isinstance(value.producer.op, Transpose):
                perms[_perm(value.producer)] = None
        for _, turned, _ in self.readers():
            perms.update(dict.fromkeys(_inverse(_perm(node)) for node in turned))
        return list(perms)

    def gain(self, perm: _Perm) -> int:
        """How many transposes fewer there are when all values are turned back by ``perm``."""
        total = 0
        for value in self.inputs():
            if not _is_turned(value, perm):
                total -= 1
            elif not value.is_output and all(user in self.inside for user in value.users):
                total += 1
        for _, turned, others in self.readers():
            total += sum(_undone(node, perm) for node in turned) - others
        return total


class MoveTransposes(Pass):
    """Move transposes through ops that work in any layout, where that leaves fewer of them.

    With v = transpose(w, p) for every value v of a region of such ops, the region computes w from
    operands turned back by p: ``op(transpose(a, p), transpose(b, p)) = transpose(op(a, b), p)``,
    axes renamed by p, constants turned. A transpose by p that comes in goes; so does one that
    leaves and undoes p. Every other value that comes in or leaves takes a transpose of its own.
    A region is turned where the sum is less, so that the number of transposes only falls.
    """

    name = "move-transposes"

    def run(self, graph: Graph, ctx: PassContext) -> int:
        changes = sum(self.run(g, ctx) for n in list(graph.nodes()) for g in n.graphs)
        for region in _regions(graph):
            gains = [(region.gain(perm), perm) for perm in region.candidates()]
            best, perm = max(gains, default=(0, ()))
            if best <= 0:
                _say_why(region, best, perm, ctx)
            else:
                _turn(region, perm)
                ctx.statistics["transposes removed"] += best
                changes += 1
        return changes


def _say_why(region: _Region, gain: int, perm: _Perm, ctx: PassContext) -> None:
    if perm:
        reason = f"turned back by {list(perm)}, its region has {-gain} transposes more"
        ctx.decline("turn", region.nodes[0], reason)


def _regions(graph: Graph) -> list[_Region]:
    """The regions of a graph that have more than constants to read, in graph order."""
    order = {node: i for i, node in enumerate(graph.nodes()) if _is_free(node)}
    seen: set[Node[Any]] = set()
    regions: list[_Region] = []
    for start in order:
        if start in seen:
            continue
        seen.add(start)
        members, stack = [start], [start]
        while stack:
            node = stack.pop()
            makers = [v.producer for v in node.present_operands if v.producer is not None]
            near = [n for n in (*makers, *node.result.users) if n in order and n not in seen]
            fresh = list(dict.fromkeys(near))
            seen.update(fresh)
            members += fresh
            stack += fresh
        regions.append(_Region(sorted(members, key=order.__getitem__)))
    return regions


def _is_free(node: Node[Any]) -> bool:
    """Whether a node computes the same in any layout: all that flows into it has its rank."""
    if not node.op.elementwise and not isinstance(node.op, _AXIS):
        return False
    if len(node.results) != 1 or node.op.random:
        return False
    result = node.result.type
    if not isinstance(result, TensorType) or not result.rank or result.quant is not None:
        return False
    for value in node.present_operands:
        operand = value.type
        if not isinstance(operand, TensorType) or operand.quant is not None or operand.rank is None:
            return False
        if isinstance(value, Constant):
            if value.data.is_elided or operand.rank > result.rank:
                return False
        elif operand.rank != result.rank:
            return False
    return True


def _perm(node: Node[Any]) -> _Perm:
    rank = node.need("x").tensor.rank or 0
    return node.op.perm or tuple(reversed(range(rank)))


def _inverse(perm: _Perm) -> _Perm:
    return tuple(sorted(range(len(perm)), key=perm.__getitem__))


def _is_turned(value: Value, perm: _Perm) -> bool:
    node = value.producer
    return node is not None and isinstance(node.op, Transpose) and _perm(node) == perm


def _undone(node: Node[Any], perm: _Perm) -> bool:
    """Whether a Transpose of a value undoes ``perm``; a graph output keeps its node."""
    return _perm(node) == _inverse(perm) and not node.result.is_output


def _turn(region: _Region, perm: _Perm) -> None:
    """Compute the region in the other layout, and turn what leaves it."""
    back = _inverse(perm)
    leaving = {value: (turned, others) for value, turned, others in region.readers()}
    turned: dict[Value, Value] = {}
    sources = [v.producer for v in region.inputs() if v.producer is not None]
    renames: list[tuple[Value, str]] = []
    for node in region.nodes:
        operands = [
            None if v is None else _turned_operand(v, node, perm, turned) for v in node.operands
        ]
        made = _insert(node, _renamed_axis(node, perm), operands, back)
        turned[node.result] = made
        readers, others = leaving.get(node.result, ([], False))
        for reader in readers:
            _compose(reader, made, perm)
        if others:
            whole = _insert(node, Transpose(perm=perm), [made], tuple(range(len(perm))))
            renames.append((whole, node.name))
            node.result.replace_uses(whole, keep=region.nodes)
    for node in reversed(region.nodes):
        node.graph.erase(node)
    erase_dead(node for node in sources if not node.erased)
    for value, name in renames:
        value.rename(name)


def _turned_operand(
    value: Value, reader: Node[Any], perm: _Perm, turned: dict[Value, Value]
) -> Value:
    """A value in the other layout: computed so, before its transpose, or transposed now."""
    if value in turned:
        return turned[value]
    back = _inverse(perm)
    if isinstance(value, Constant):
        turned_value = _constant(value, back)
    elif _is_turned(value, perm) and value.producer is not None:
        turned_value = value.producer.need("x")
    else:
        turned_value = _insert(reader, Transpose(perm=back), [value], back, value)
    turned[value] = turned_value
    return turned_value


def _constant(value: Constant, back: _Perm) -> Value:
    """A constant in the other layout; one number is the same in all of them."""
    array = value.data.array()
    if array.size == 1:
        return value
    wide = array.reshape((1,) * (len(back) - array.ndim) + array.shape).transpose(back)
    name = value.module.fresh_name(f"{value.name}_turned")
    return value.module.add_constant(name, Data.of(np.ascontiguousarray(wide), value.tensor.elem))


def _insert(
    node: Node[Any], op: Op, operands: list[Value | None], order: _Perm, source: Value | None = None
) -> Value:
    """A node before another one, whose result has that one's type (or ``source``'s), turned."""
    value = node.result if source is None else source
    shape = value.tensor.shape
    dims = None if shape is None else tuple(shape[i] for i in order)
    name = node.graph.module.fresh_name(f"{value.name}_turned")
    type = TensorType(value.tensor.elem, dims).with_range(value.tensor.range)
    made = node.graph.insert(
        op, operands, [type], [name], loc=node.loc, mode=node.mode, before=node
    )
    return made.result


def _renamed_axis(node: Node[Any], perm: _Perm) -> Op:
    """The op with its axis as the other layout has it."""
    if not isinstance(node.op, _AXIS):
        return node.op
    return replace(node.op, axis=perm[node.op.axis % len(perm)])


def _compose(reader: Node[Any], source: Value, perm: _Perm) -> None:
    """transpose(transpose(w, p), q) = transpose(w, p[q]); the identity goes."""
    result, name = reader.result, reader.name
    if _undone(reader, perm):
        result.replace_uses(source)
        reader.graph.erase(reader)
        return
    joined = tuple(perm[i] for i in _perm(reader))
    made = _insert(reader, Transpose(perm=joined), [source], tuple(range(len(perm))))
    result.replace_uses(made)
    reader.graph.erase(reader)
    made.rename(name)
