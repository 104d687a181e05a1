"""The driver under random rules on random graphs: names, soundness, numbers, locations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from qdqc.ir.clone import clone
from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.data import Data
from qdqc.ir.graph import Graph, Module
from qdqc.ir.loc import Loc
from qdqc.ir.op import OPS, Op
from qdqc.ir.types import Elem, Range, TensorType
from qdqc.ir.verify import verify
from qdqc.pipeline.pass_ import PassContext
from qdqc.rewrite.driver import apply, erase_dead
from qdqc.rewrite.rewriter import Rewriter
from qdqc.text.printer import print_module

I = TensorType(Elem.I64, ())  # noqa: E741 - the type of all values here
F = TensorType(Elem.F32, ())
Rule = Callable[[Node[Any], Rewriter], Any]

with OPS.scratch():

    class Plus(Op):
        """a + b."""

        name, operands = "r_plus", ("a", "b")

        def infer(self, a: TensorType, b: TensorType) -> tuple[TensorType]:
            return (TensorType(a.elem, a.shape),)

    class Times(Op):
        """factor * a."""

        name, operands = "r_times", ("a",)
        factor: int = 1

        def infer(self, a: TensorType) -> tuple[TensorType]:
            return (TensorType(a.elem, a.shape),)

    class Both(Op):
        """(a + b, a - b)."""

        name, operands, results = "r_both", ("a", "b"), ("sum", "difference")

        def infer(self, a: TensorType, b: TensorType) -> tuple[TensorType, TensorType]:
            return (TensorType(a.elem, a.shape), TensorType(a.elem, a.shape))

    class Body(Op):
        """What its graph returns."""

        name, operands, graphs = "r_body", (), ("body",)

        def infer_node(self, node: Node[Any]) -> tuple[TensorType | None, ...]:
            return (None,)


def unneeded(node: Node[Any], rw: Rewriter) -> Any:
    """1 * a = a."""
    if node.op.factor != 1:
        return rw.no("the factor is not 1")
    return node.operands[0]


def halved(node: Node[Any], rw: Rewriter) -> Any:
    """(a + 0, a - 0) = (a, a): one value for two results."""
    array = rw.array(node.operands[1])
    if array is None or array.any():
        return None
    return [node.operands[0]] * 2


def merged(node: Node[Any], rw: Rewriter) -> Any:
    """f * (g * a) = (f g) * a."""
    x = node.operands[0]
    if x is None or x.producer is None or not isinstance(x.producer.op, Times):
        return rw.no("no product inside", x)
    return rw.op(Times(factor=node.op.factor * x.producer.op.factor), x.producer.operands[0])


def doubled(node: Node[Any], rw: Rewriter) -> Any:
    """a + a = 2 * a."""
    a, b = node.operands
    if a is not b:
        return rw.no("two different operands", b)
    return rw.op(Times(factor=2), a)


def pulled(node: Node[Any], rw: Rewriter) -> Any:
    """f * a + f * b = f * (a + b), where nobody else reads them."""
    a, b = (None if v is None else v.producer for v in node.operands)
    if a is None or b is None or a is b:
        return None
    if not isinstance(a.op, Times) or a.op != b.op or not all(map(rw.only_use, node.operands)):
        return None
    return rw.op(a.op, rw.op(Plus(), a.operands[0], b.operands[0], name="inner"))


def split(node: Node[Any], rw: Rewriter) -> Any:
    """(a + b, a - b) from sums and products."""
    a, b = node.operands
    found = rw.op(Plus(), a, b)
    return [found, rw.op(Plus(), a, rw.op(Times(factor=-1), b))]


def folded(node: Node[Any], rw: Rewriter) -> Any:
    """f * constant = constant."""
    array = rw.array(node.operands[0])
    if array is None:
        return None
    return rw.constant(np.asarray(array) * node.op.factor)


def flattened(node: Node[Any], rw: Rewriter) -> Any:
    """A body that returns a value of the outer graph is that value."""
    (found,) = node.graphs[0].outputs
    if found.graph is not node.graph and not isinstance(found, Constant):
        return rw.no("made inside", found)
    return found


RULES: list[tuple[type[Op], Rule]] = [
    (Times, unneeded),
    (Times, merged),
    (Times, folded),
    (Plus, doubled),
    (Plus, pulled),
    (Both, halved),
    (Both, split),
    (Body, flattened),
]


def fill(draw: Any, graph: Graph, held: list[Value], depth: int) -> None:
    """Up to eight nodes that read what is held, and add to it."""
    module = graph.module
    for _ in range(draw(st.integers(1, 8 if depth == 0 else 3))):
        name = module.fresh_name("n")
        x, y = draw(st.sampled_from(held)), draw(st.sampled_from(held))
        kind = draw(st.sampled_from([Plus, Times, Times, Both, Body][: 5 if depth == 0 else 4]))
        loc = Loc((f"/{name}",))
        if kind is Times:
            op = Times(factor=draw(st.integers(-2, 2)))
            made = graph.insert(op, [x], None, [name], loc=loc)
        elif kind is Body:
            body = Graph(module)
            inner = list(held)
            fill(draw, body, inner, 1)
            body.set_outputs([draw(st.sampled_from(inner))])
            made = graph.insert(Body(), [], [I], [module.fresh_name("n")], graphs=[body], loc=loc)
        else:
            names = [name, f"{name}_d"][: len(kind.results)]
            made = graph.insert(kind(), [x, y], None, names, loc=loc)
        held += made.present_results


@st.composite
def modules(draw: Any) -> Module:
    module = Module()
    held = [module.graph.add_input("x", I), module.graph.add_input("y", I)]
    held.append(module.add_constant("c", Data.of(np.int64(3))))
    held.append(module.add_constant("zero", Data.of(np.int64(0))))
    fill(draw, module.graph, held, 0)
    outputs = [v for v in held if v.producer is not None]
    chosen = draw(st.lists(st.sampled_from(outputs), min_size=1, max_size=3, unique=True))
    module.graph.set_outputs(chosen)
    return module


def evaluate(graph: Graph, known: dict[Value, int]) -> list[int]:
    """The outputs by integer arithmetic."""
    for name, constant in graph.module.constants.items():
        assert constant.name == name
        known[constant] = int(constant.data.array())
    for node in graph.nodes():
        x = [known[v] for v in node.present_operands]
        if isinstance(node.op, Times):
            found = [node.op.factor * x[0]]
        elif isinstance(node.op, Plus):
            found = [x[0] + x[1]]
        elif isinstance(node.op, Both):
            found = [x[0] + x[1], x[0] - x[1]]
        else:
            found = evaluate(node.graphs[0], dict(known))
        known.update(zip((r for r in node.results if r is not None), found, strict=True))
    return [known[v] for v in graph.outputs]


def outputs(module: Module) -> list[int]:
    x, y = module.graph.inputs
    return evaluate(module.graph, {x: 1_000_003, y: -77})


def some_rules(draw: Any) -> list[tuple[type[Op], str, Rule]]:
    chosen = draw(st.lists(st.sampled_from(RULES), unique=True, min_size=1))
    return [(op, rule.__name__, rule) for op, rule in chosen]


@settings(max_examples=120, deadline=None)
@given(modules(), st.data())
def test_rules_keep_numbers_names_and_the_modules_soundness(module: Module, data: Any) -> None:
    before, expected = clone(module), outputs(module)
    assert outputs(before) == expected
    rules = some_rules(data.draw)
    ctx = PassContext()
    changes = apply(rules, module.graph, ctx)
    assert [d.message for d in verify(module)] == []
    assert outputs(module) == expected
    assert [v.name for v in module.graph.inputs] == ["x", "y"]
    assert [v.name for v in module.graph.outputs] == [v.name for v in before.graph.outputs]
    assert sum(ctx.statistics.values()) == changes
    assert changes > 0 or print_module(module) == print_module(before)
    unread = {name for name, c in before.constants.items() if not c.is_used}
    assert {name for name, c in module.constants.items() if not c.is_used} <= unread


@settings(max_examples=60, deadline=None)
@given(modules(), st.data())
def test_a_second_run_finds_nothing_more(module: Module, data: Any) -> None:
    rules = some_rules(data.draw)
    apply(rules, module.graph, PassContext())
    text = print_module(module)
    assert apply(rules, module.graph, PassContext()) == 0
    assert print_module(module) == text


@settings(max_examples=60, deadline=None)
@given(modules(), st.data())
def test_the_same_rules_give_the_same_text(module: Module, data: Any) -> None:
    rules, copy = some_rules(data.draw), clone(module)
    assert apply(rules, module.graph, PassContext()) == apply(rules, copy.graph, PassContext())
    assert print_module(module) == print_module(copy)


@settings(max_examples=60, deadline=None)
@given(modules(), st.data())
def test_every_node_left_says_where_it_comes_from(module: Module, data: Any) -> None:
    known = {name for node in module.walk() for name in node.loc.names}
    apply(some_rules(data.draw), module.graph, PassContext())
    for node in module.walk():
        assert node.loc.names
        assert set(node.loc.names) <= known
        assert len(set(node.loc.names)) == len(node.loc.names)


@settings(max_examples=60, deadline=None)
@given(modules())
def test_asking_for_reasons_changes_nothing(module: Module) -> None:
    copy = clone(module)
    rules = [(op, rule.__name__, rule) for op, rule in RULES]
    ctx = PassContext(mismatches=[])
    apply(rules, module.graph, ctx)
    apply(rules, copy.graph, PassContext())
    assert print_module(module) == print_module(copy)
    assert all(m.reason and m.depth > 0 for m in ctx.mismatches or ())


@settings(max_examples=60, deadline=None)
@given(modules())
def test_dead_nodes_go_and_nothing_else(module: Module) -> None:
    """What is left is what the outputs need, counted by plain search."""
    needed: set[Node[Any]] = set()
    stack = [v.producer for v in module.graph.outputs]
    while stack:
        node = stack.pop()
        if node is None or node in needed or node.graph is not module.graph:
            continue
        needed.add(node)
        stack += [v.producer for v in (*node.present_operands, *node.captures())]
    expected = outputs(module)
    unread = [n for n in module.graph.nodes() if not any(r.is_used for r in n.present_results)]
    dead = erase_dead(unread)
    assert set(module.graph.nodes()) == needed
    assert all(node.erased for node in dead)
    assert verify(module) == []
    assert outputs(module) == expected


ends = st.floats(-4, 4, width=16)


@settings(max_examples=60, deadline=None)
@given(ends, ends, st.none() | ends)
def test_the_numbers_of_a_name_keep_their_range(low: float, high: float, own: float | None) -> None:
    """A range that the rule gives is the rule's; else the old value's stays."""
    module = Module()
    held = Range(min(low, high), max(low, high), math.fabs(low))
    x = module.graph.add_input("x", F)
    node = module.graph.insert(Plus(), [x, x], [F.with_range(held)], ["y"])
    module.graph.set_outputs([node.result])
    given_type = None if own is None else F.with_range(Range(-9, own, 9))

    def rule(node: Node[Any], rw: Rewriter) -> Any:
        return rw.op(Times(factor=2), node.operands[0], type=given_type)

    assert apply([(Plus, "rule", rule)], module.graph, PassContext()) == 1
    y = module.value("y")
    assert y is not None
    assert y.tensor.range == (held if own is None else Range(-9, own, 9))
