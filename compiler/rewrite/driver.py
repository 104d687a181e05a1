"""The worklist driver: applies rules until none matches, and keeps names and locations."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.graph import Graph
from qdqc.ir.loc import Loc
from qdqc.ir.merge import compatible, merge_types
from qdqc.ir.op import Op
from qdqc.ir.types import TensorType
from qdqc.pipeline.pass_ import Mismatch, PassContext
from qdqc.rewrite.rewriter import Result, Rewriter, Rule

__all__ = ["apply", "erase_dead"]

Rules = Sequence[tuple[type[Op], str, Rule]]
Pairs = list[tuple[Value, Value]]

_REWRITES_PER_NODE = 64
"""Above this many rewrites per node on average the rules are taken to run in circles."""


def apply(rules: Rules, graph: Graph, ctx: PassContext) -> int:
    """Apply rules to all nodes of a graph and of its nested graphs, to a fixed point.

    Returns the number of rewrites. Raises RuntimeError, naming the rule, when the rules never
    come to an end or when a rule breaks the driver's contract.
    """
    by_op: dict[type[Op], list[tuple[str, Rule]]] = {}
    for op, name, rule in rules:
        by_op.setdefault(op, []).append((name, rule))
    work: deque[Node[Any]] = deque(graph.walk())
    queued = set(work)
    budget = _REWRITES_PER_NODE * (len(work) + 16)
    changes = 0
    while work:
        node = work.popleft()
        queued.discard(node)
        for name, rule in by_op.get(type(node.op), ()):
            if node.erased:
                break
            touched = _try_rule(name, rule, node, ctx)
            if touched is None:
                continue
            changes += 1
            if changes > budget:
                raise RuntimeError(f"rule '{name}' never comes to an end, last at {node!r}")
            ctx.statistics[name] += 1
            fresh = [n for n in touched if n not in queued]
            queued.update(fresh)
            work.extend(fresh)
    return changes


def erase_dead(roots: Iterable[Node[Any]]) -> list[Node[Any]]:
    """Erase those of the nodes that nobody reads, and what only they read, upwards.

    Constants that only they read go as well. Returns the erased nodes, producers before
    consumers.
    """
    return _erase_dead(roots)[0]


def _erase_dead(roots: Iterable[Node[Any]]) -> tuple[list[Node[Any]], list[Value]]:
    """The erased nodes, and the values that they read and that are still there."""
    dead: list[Node[Any]] = []
    freed: dict[Value, None] = {}
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node.erased or any(r.is_used for r in node.present_results):
            continue
        inputs = [*node.present_operands, *node.captures(), *_inner_constants(node)]
        node.graph.erase(node)
        dead.append(node)
        for value in inputs:
            freed[value] = None
            if value.producer is not None:
                stack.append(value.producer)
    _drop_unused(v for v in freed if isinstance(v, Constant))
    left = [v for v in freed if v.producer is not None and not v.producer.erased]
    return dead[::-1], left


def _inner_constants(node: Node[Any]) -> Iterator[Value]:
    """Constants that nested graphs read; they belong to the module and are not captures."""
    for graph in node.nested_graphs():
        reads = [v for inner in graph.nodes() for v in inner.present_operands]
        yield from (v for v in (*reads, *graph.outputs) if isinstance(v, Constant))


def _drop_unused(constants: Iterable[Constant]) -> None:
    for constant in constants:
        if not constant.is_used:
            constant.module.leave(constant)


def _try_rule(name: str, rule: Rule, node: Node[Any], ctx: PassContext) -> list[Node[Any]] | None:
    """Apply one rule to one node; the nodes to look at again, or None without a match."""
    rewriter = Rewriter(node, name, ctx)
    try:
        result = rule(node, rewriter)
    except Exception as error:
        error.add_note(f"in rule '{name}' at {node!r}")
        raise
    if result is None:
        if rewriter.created or rewriter.constants:
            raise RuntimeError(f"rule '{name}' made nodes at {node!r} and then declined")
        return None
    pairs = _pairs(name, node, result)
    _check_reads(name, node, rewriter)
    if not _can_take_over(pairs, rewriter):
        erase_dead(rewriter.created)
        _drop_unused(rewriter.constants)
        _note_output(name, node, ctx)
        return None
    return _replace(node, pairs, rewriter)


def _pairs(name: str, node: Node[Any], result: Result) -> Pairs:
    values = [result] if isinstance(result, Value) else list(result or ())
    if len(values) > len(node.results):
        raise RuntimeError(f"rule '{name}' gave {len(values)} values for {node!r}")
    values += [None] * (len(node.results) - len(values))
    pairs: Pairs = []
    for old, new in zip(node.results, values, strict=True):
        if old is not None and new is not None:
            pairs.append((old, new))
        elif old is not None and old.is_used:
            raise RuntimeError(f"rule '{name}' gave nothing for {old} of {node!r}, which is read")
    return pairs


def _check_reads(name: str, node: Node[Any], rewriter: Rewriter) -> None:
    """What a rule makes stands before its root, so it can't read the root's results."""
    for created in rewriter.created:
        for value in created.present_operands:
            if value.producer is node:
                raise RuntimeError(f"rule '{name}' made {created!r}, which reads {node!r} itself")


def _can_take_over(pairs: Pairs, rewriter: Rewriter) -> bool:
    """Whether each new value may stand for its old one: graph outputs keep their names."""
    outputs = [(old, new) for old, new in pairs if old.is_output and old is not new]
    if len({new for _, new in outputs}) < len(outputs):
        return False
    for old, new in outputs:
        if new.producer in rewriter.created:
            continue
        if new.producer is None or new.is_output or new.graph is not old.graph:
            return False
    return True


def _note_output(name: str, node: Node[Any], ctx: PassContext) -> None:
    if ctx.mismatches is not None:
        reason = "the replacement can't take the name of a graph output"
        ctx.mismatches.append(Mismatch(name, node.name, node.op.name, reason, 1 << 30, node.loc))


def _replace(node: Node[Any], pairs: Pairs, rewriter: Rewriter) -> list[Node[Any]]:
    names: dict[Value, str] = {}
    inferred = [n for n in rewriter.created if n not in rewriter.typed]
    for old, new in pairs:
        if old is new:
            continue
        if old.is_output or (new.producer in rewriter.created and new not in names):
            names[new] = old.name
            _inherit_type(old, new, given=new.producer not in inferred)
        old.replace_uses(new)
    dead, freed = _erase_dead([node, *rewriter.created])
    _drop_unused(rewriter.constants)
    for value, name in names.items():
        if value.producer is not None and not value.producer.erased:  # nobody may have read it
            value.rename(name)
    made = [n for n in rewriter.created if not n.erased]
    loc = Loc().merge(*(n.loc for n in dead)) if node.erased else node.loc
    for created in made:
        if created not in rewriter.moved:
            created.loc = loc
        elif any(r in names for r in created.present_results):
            created.loc = created.loc.merge(loc)
    return _around(made, [*(new for _, new in pairs), *freed])


def _around(made: list[Node[Any]], values: list[Value]) -> list[Node[Any]]:
    """Nodes that may match now: the new ones, and producers and readers of the given values.

    In a fixed order, so that a pipeline makes the same names every time.
    """
    near: dict[Node[Any], None] = dict.fromkeys(made)
    for value in (*values, *(v for n in made for v in n.present_operands)):
        if value.producer is not None:
            near[value.producer] = None
    for value in values:
        near.update(dict.fromkeys(value.users))
    return [n for n in near if not n.erased]


def _inherit_type(old: Value, new: Value, given: bool) -> None:
    """The same numbers under the same name keep their range and what was known of the shape.

    An inferred type takes over the old precision; a type that was ``given`` keeps its own.
    """
    if not isinstance(old.type, TensorType) or not isinstance(new.type, TensorType):
        return
    if not compatible(old.type, new.type):
        return
    kept = old.type.range if new.type.range is None else new.type.range
    merged = merge_types(new.type, old.type) if given else merge_types(old.type, new.type)
    if isinstance(merged, TensorType):
        new.type = merged if merged.quant is not None else merged.with_range(kept)
