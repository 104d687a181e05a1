"""The driver's promises: names, locations, types, fixed points, and rules that break them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qdqc.ir.core import Node, Value
from qdqc.ir.data import Data
from qdqc.ir.graph import Graph, Module
from qdqc.ir.loc import Loc
from qdqc.ir.op import OPS, Op
from qdqc.ir.types import Elem, Quant, Range, TensorType
from qdqc.pipeline.pass_ import PASSES, PassContext
from qdqc.rewrite.driver import apply, erase_dead
from qdqc.rewrite.pattern import PatternPass, Rewriter, rewrites

F32 = TensorType(Elem.F32, (2, 3))

with OPS.scratch():

    class Unary(Op):
        """One in, one out, of the same type."""

        name, operands = "t_unary", ("x",)
        tag: str = ""

        def infer(self, x: TensorType) -> tuple[TensorType]:
            return (x,)

    class Pair(Op):
        """Two in, one out."""

        name, operands = "t_pair", ("a", "b")

        def infer(self, a: TensorType, b: TensorType) -> tuple[TensorType]:
            return (a,)

    class Twins(Op):
        """One in, two out."""

        name, operands, results = "t_twins", ("x",), ("y", "z")

        def infer(self, x: TensorType) -> tuple[TensorType, TensorType]:
            return (x, x)

    class Region(Op):
        """Runs a nested graph."""

        name, operands, graphs = "t_region", (), ("body",)

        def infer(self) -> tuple[TensorType]:
            return (F32,)


Rule = Callable[[Node[Any], Rewriter], Any]


def unary(
    graph: Graph, x: Value, name: str, tag: str = "", type: TensorType | None = None
) -> Value:
    types = None if type is None else [type]
    return graph.insert(Unary(tag=tag), [x], types, [name], loc=Loc((f"/{name}",))).result


def chain(*tags: str) -> Module:
    """x -> n0 -> n1 ..., the last one returned."""
    module = Module()
    value = module.graph.add_input("x", F32)
    for index, tag in enumerate(tags):
        value = unary(module.graph, value, f"n{index}", tag)
    module.graph.set_outputs([value])
    return module


def names(module: Module) -> list[str]:
    return [node.name for node in module.walk()]


def run(module: Module, rule: Rule, op: type[Op] = Unary, ctx: PassContext | None = None) -> int:
    return apply([(op, "the-rule", rule)], module.graph, ctx or PassContext())


def producer(value: Value | None) -> Node[Any]:
    assert value is not None
    assert value.producer is not None
    return value.producer


def fuse(node: Node[Any], rw: Rewriter) -> Value | None:
    """unary(unary(x)) -> one node with both tags."""
    x = node.operands[0]
    if x is None or x.producer is None or not rw.only_use(x):
        return rw.no("operand is not a single-use node", x)
    inner = x.producer
    return rw.op(Unary(tag=inner.op.tag + node.op.tag), inner.operands[0])


def test_the_new_node_takes_the_old_name_and_all_locations_in_order() -> None:
    module = chain("a", "b", "c")
    assert run(module, fuse) == 2
    assert names(module) == ["n2"]
    node = producer(module.graph.outputs[0])
    assert node.op == Unary(tag="abc")
    assert node.loc.names == ("/n0", "/n1", "/n2")
    assert list(module.value_names()) == ["x", "n2"]


def test_inner_nodes_keep_the_name_they_asked_for() -> None:
    module = chain("split")

    def split(node: Node[Any], rw: Rewriter) -> Value | None:
        if node.op.tag != "split":
            return None
        first = rw.op(Unary(tag="l"), node.operands[0], name="left")
        return rw.op(Unary(tag="r"), first)

    run(module, split)
    assert names(module) == ["left", "n0"]
    assert all(node.loc.names == ("/n0",) for node in module.walk())


def test_a_value_that_others_read_is_not_swallowed() -> None:
    module = chain("a", "b")
    module.graph.set_outputs([*module.graph.outputs, module.value("n0")])  # type: ignore[list-item]
    ctx = PassContext(mismatches=[])
    assert run(module, fuse, ctx=ctx) == 0
    assert {m.reason for m in ctx.mismatches or ()} == {"operand is not a single-use node"}


def test_removal_keeps_the_name_of_a_graph_output() -> None:
    module = chain("a", "drop")

    def drop(node: Node[Any], rw: Rewriter) -> Value | None:
        return node.operands[0] if node.op.tag == "drop" else None

    assert run(module, drop) == 1
    assert names(module) == ["n1"]
    assert producer(module.graph.outputs[0]).op == Unary(tag="a")


def test_removal_inside_the_graph_keeps_the_producers_name() -> None:
    module = chain("a", "drop", "c")
    run(module, lambda node, rw: node.operands[0] if node.op.tag == "drop" else None)
    assert names(module) == ["n0", "n2"]


def test_a_graph_input_is_never_renamed_to_an_output() -> None:
    module = chain("drop")
    ctx = PassContext(mismatches=[])
    assert run(module, lambda node, rw: node.operands[0], ctx=ctx) == 0
    assert names(module) == ["n0"]
    assert module.graph.inputs[0].name == "x"
    assert [m.reason for m in ctx.mismatches or ()] == [
        "the replacement can't take the name of a graph output"
    ]


def test_two_outputs_do_not_collapse_into_one_name() -> None:
    module = Module()
    x = module.graph.add_input("x", F32)
    a = unary(module.graph, x, "a")
    twins = module.graph.insert(Twins(), [a], None, ["p", "q"])
    module.graph.set_outputs(list(twins.present_results))
    assert run(module, lambda node, rw: [node.operands[0], node.operands[0]], Twins) == 0
    made = run(module, lambda node, rw: [rw.op(Unary(), node.operands[0])] * 2, Twins)
    assert made == 0
    assert [v.name for v in module.graph.outputs] == ["p", "q"]
    assert names(module) == ["a", "p"]


def test_one_new_value_for_an_output_and_an_inner_value_bears_the_outputs_name() -> None:
    module = Module()
    twins = module.graph.insert(Twins(), [module.graph.add_input("x", F32)], None, ["p", "q"])
    p, q = twins.present_results
    last = unary(module.graph, q, "last")
    module.graph.set_outputs([p, last])
    run(module, lambda node, rw: [rw.op(Unary(), node.operands[0])] * 2, Twins)
    assert [v.name for v in module.graph.outputs] == ["p", "last"]
    assert producer(last).operands[0] is module.graph.outputs[0]


def test_a_declined_replacement_leaves_no_trace() -> None:
    module = chain("a")

    def constant(node: Node[Any], rw: Rewriter) -> Value:
        return rw.constant(np.zeros((2, 3), np.float32))

    assert run(module, constant) == 0
    assert not module.constants
    assert list(module.value_names()) == ["x", "n0"]


def test_a_replacement_that_nobody_reads_leaves_no_name_behind() -> None:
    """The root's result was dead, so the new node is erased with it: both names are free."""
    module = chain("a", "b")
    dead = unary(module.graph, module.graph.outputs[0], "dead", "old")
    assert not dead.is_used
    run(module, lambda n, rw: rw.op(Unary(), n.operands[0]) if n.op.tag == "old" else None)
    assert names(module) == ["n0", "n1"]
    assert list(module.value_names()) == ["x", "n0", "n1"]


def test_constants_that_only_the_replaced_node_read_are_dropped() -> None:
    module = Module()
    x = module.graph.add_input("x", F32)
    w = module.add_constant("w", Data.of(np.ones((2, 3), np.float32)))
    shared = module.add_constant("shared", Data.of(np.ones((2, 3), np.float32)))
    one = module.graph.insert(Pair(), [x, w], None, ["one"]).result
    two = module.graph.insert(Pair(), [one, shared], None, ["two"]).result
    last = module.graph.insert(Pair(), [two, shared], None, ["last"]).result
    module.graph.set_outputs([last])

    def first(node: Node[Any], rw: Rewriter) -> Value | None:
        return rw.op(Unary(), node.operands[0]) if node.name in ("one", "two") else None

    assert run(module, first, Pair) == 2
    assert list(module.constants) == ["shared"]


def test_rewriting_frees_a_value_for_rules_that_want_a_single_use() -> None:
    """The producer's other reader goes away, so its first reader must be looked at again."""
    module = Module()
    x = module.graph.add_input("x", F32)
    a = unary(module.graph, x, "a", "a")
    b = unary(module.graph, a, "b", "b")
    pair = module.graph.insert(Pair(), [b, a], None, ["pair"]).result
    module.graph.set_outputs([pair])

    def left(node: Node[Any], rw: Rewriter) -> Value | None:
        return rw.op(Unary(tag="p"), node.operands[0])

    ctx = PassContext()
    rules = [(Unary, "fuse", fuse), (Pair, "left", left)]
    assert apply(rules, module.graph, ctx) == 3
    assert names(module) == ["pair"]
    assert producer(module.graph.outputs[0]).op == Unary(tag="abp")
    assert ctx.statistics == {"fuse": 2, "left": 1}


def test_nested_graphs_are_rewritten_too() -> None:
    module = chain("a")
    body = Graph(module)
    outer = module.graph.outputs[0]
    inner = unary(body, unary(body, outer, "i0", "i"), "i1", "j")
    body.set_outputs([inner])
    region = module.graph.insert(Region(), [], None, ["r"], graphs=[body])
    module.graph.set_outputs([region.result])

    assert run(module, fuse) == 1
    assert names(module) == ["n0", "r", "i1"]  # what is made outside stays outside
    assert producer(body.outputs[0]).op == Unary(tag="ij")


def test_an_endless_rule_is_named() -> None:
    module = chain("a")

    def spin(node: Node[Any], rw: Rewriter) -> Value:
        return rw.op(Unary(tag="b" if node.op.tag == "a" else "a"), node.operands[0])

    with pytest.raises(RuntimeError, match=r"rule 'the-rule' never comes to an end.*n0"):
        run(module, spin)


@pytest.mark.parametrize("what", ["node", "constant"])
def test_making_something_and_then_declining_is_told(what: str) -> None:
    module = chain("a")

    def rule(node: Node[Any], rw: Rewriter) -> None:
        if what == "node":
            rw.op(Unary(), node.operands[0])
        else:
            rw.constant(1.0)

    with pytest.raises(RuntimeError, match=r"'the-rule' made nodes at .* and then declined"):
        run(module, rule)


def test_reading_the_replaced_value_is_told() -> None:
    module = chain("a")
    with pytest.raises(RuntimeError, match="reads <t_unary n0> itself"):
        run(module, lambda node, rw: rw.op(Unary(), node.result))


def test_wrong_numbers_of_values_are_told() -> None:
    module = chain("a")
    with pytest.raises(RuntimeError, match="gave 2 values"):
        run(module, lambda node, rw: [node.operands[0], node.operands[0]])
    with pytest.raises(RuntimeError, match="gave nothing for %n0"):
        run(module, lambda node, rw: [])


def test_an_exception_in_a_rule_names_the_rule_and_the_node() -> None:
    def broken(node: Node[Any], rw: Rewriter) -> None:
        raise KeyError("pads")

    with pytest.raises(KeyError) as caught:
        run(chain("a"), broken)
    assert caught.value.__notes__ == ["in rule 'the-rule' at <t_unary n0>"]


def test_a_rule_may_change_its_node_and_give_back_its_own_value() -> None:
    module = chain("a", "b")

    def mark(node: Node[Any], rw: Rewriter) -> Value | None:
        if node.op.tag.endswith("!"):
            return None
        node.op = Unary(tag=node.op.tag + "!")
        return node.result

    assert run(module, mark) == 2
    assert [n.op.tag for n in module.walk()] == ["a!", "b!"]


def test_the_range_passes_to_the_new_value() -> None:
    module = Module()
    x = module.graph.add_input("x", F32)
    found = Range(-1.0, 2.0, 2.0)
    a = unary(module.graph, x, "a", "old", F32.with_range(found))
    module.graph.set_outputs([unary(module.graph, a, "b")])
    run(module, lambda n, rw: rw.op(Unary(), n.operands[0]) if n.op.tag == "old" else None)
    assert module.value("a").tensor.range == found  # type: ignore[union-attr]


def test_an_inferred_type_takes_the_old_precision_and_a_given_one_keeps_its_own() -> None:
    quantized = F32.with_quant(Elem.U8, Quant.make(0.5, 3))
    for given in (None, TensorType(Elem.F32, (None, 3))):
        module = Module()
        x = module.graph.add_input("x", F32)
        a = unary(module.graph, x, "a", "old", quantized)
        module.graph.set_outputs([a])

        def rule(node: Node[Any], rw: Rewriter, given: TensorType | None = given) -> Value | None:
            return rw.op(Unary(), node.operands[0], type=given) if node.op.tag == "old" else None

        run(module, rule)
        found = module.value("a")
        assert found is not None
        assert found.type == (quantized if given is None else F32)


def test_explanations_know_how_far_a_rule_came() -> None:
    module = chain("a", "b")
    ctx = PassContext(mismatches=[])

    def picky(node: Node[Any], rw: Rewriter) -> None:
        if node.op.tag == "a":
            return rw.no("first guard")
        return rw.no("second guard", node.operands[0])

    run(module, picky, ctx=ctx)
    first, second = ctx.mismatches or ()
    assert (first.reason, first.node, first.value) == ("first guard", "n0", None)
    assert (second.reason, second.node, second.value) == ("second guard", "n1", "%n0")
    assert first.depth < second.depth
    assert second.loc.names == ("/n1",)


def test_nothing_is_collected_when_nobody_asked() -> None:
    ctx = PassContext()
    run(chain("a"), lambda node, rw: rw.no("why"), ctx=ctx)
    assert ctx.mismatches is None


def test_erase_dead_goes_upwards_and_stops_at_what_is_read() -> None:
    module = chain("a", "b", "c")
    kept = module.value("n0")
    assert kept is not None
    module.graph.set_outputs([kept])
    last = module.value("n2")
    dead = erase_dead([producer(last)])
    assert [n.op.tag for n in dead] == ["b", "c"]
    assert names(module) == ["n0"]


def test_a_pattern_pass_inherits_and_overrides_rules() -> None:
    with PASSES.scratch():

        class Upper(PatternPass):
            """Make tags upper case."""

            name = "t-upper"
            suffix: str = ""

            @rewrites(Unary)
            def upper(self, node: Node[Unary], rw: Rewriter) -> Value | None:
                if node.op.tag.isupper():
                    return None
                tag = node.op.tag.upper() + self.suffix
                return rw.op(Unary(tag=tag), node.operands[0])

        class Louder(Upper):
            """Make tags upper case and louder."""

            name = "t-louder"
            suffix: str = "!"

            @rewrites(Pair)
            def pair(self, node: Node[Pair], rw: Rewriter) -> Value | None:
                return rw.op(Unary(tag="P"), node.operands[0])

        assert Louder.rules == ((Unary, "upper"), (Pair, "pair"))
        module = chain("a", "b")
        assert Louder().run(module.graph, PassContext()) == 2
        assert [n.op.tag for n in module.walk()] == ["A!", "B!"]
        module = chain("a")
        assert Upper(suffix="X").run(module.graph, PassContext()) == 1
        assert [n.op.tag for n in module.walk()] == ["AX"]


def test_the_same_run_gives_the_same_names() -> None:
    def wide() -> list[str]:
        module = Module()
        x = module.graph.add_input("x", F32)
        values = [unary(module.graph, x, f"v{i}", "split") for i in range(8)]
        module.graph.set_outputs(values)

        def split(node: Node[Any], rw: Rewriter) -> Value | None:
            if node.op.tag != "split":
                return None
            return rw.op(Unary(), rw.op(Unary(), node.operands[0], name="inner"))

        run(module, split)
        return names(module)

    assert wide() == wide()
    assert len(wide()) == 16
