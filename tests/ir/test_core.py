"""Edges, names and order: the invariants that every change keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qdqc.ir.core import Node, Value
from qdqc.ir.data import Data
from qdqc.ir.graph import Graph, Module
from qdqc.ir.op import OPS, Op
from qdqc.ir.types import Elem, TensorType
from qdqc.ir.verify import verify

F = TensorType(Elem.F32, (2,))
One: Any = None
Many: Any = None


@pytest.fixture(scope="module", autouse=True)
def _ops():
    with OPS.scratch():

        class _One(Op):
            name, operands = "test.one", ("x", "b?")

            def infer(self, x: TensorType, b: TensorType | None = None) -> tuple[TensorType]:
                if x.shape is None:
                    raise ValueError("x has no rank")
                return (x,)

        class _Many(Op):
            name, operands, results = "test.many", ("xs*",), ("ys*",)

            def infer_node(self, node: Node[Any]) -> tuple[TensorType, ...]:
                return (F, F)

        globals().update(One=_One, Many=_Many)
        yield


@pytest.fixture
def module() -> Module:
    return Module()


@pytest.fixture
def x(module: Module) -> Value:
    return module.graph.add_input("x", F)


def order(graph: Graph) -> list[str]:
    return [node.name for node in graph.nodes()]


def test_insertion_links_and_names(module: Module, x: Value):
    last = module.graph.insert(One(), [x])
    first = module.graph.insert(One(), [x], before=last)
    middle = module.graph.insert(One(), [x], None, ["m"], before=last)
    assert order(module.graph) == ["test.one_1", "m", "test.one"]
    assert (first.next, last.prev) == (middle, middle)
    assert len(module.graph) == 3
    assert verify(module) == []


def test_a_node_that_does_not_infer_leaves_no_trace(module: Module):
    x = module.graph.add_input("x", TensorType(Elem.F32))
    with pytest.raises(ValueError, match="no rank"):
        module.graph.insert(One(), [x], None, ["y"])
    assert not x.is_used
    assert module.value("y") is None
    assert verify(module) == []


def test_a_name_that_is_taken_leaves_no_trace(module: Module, x: Value):
    with pytest.raises(ValueError, match="'%x' is taken"):
        module.graph.insert(Many(), [x], [F, F], ["a", "x"])
    assert not x.is_used
    assert module.value("a") is None
    assert verify(module) == []


def test_uses_follow_operands(module: Module, x: Value):
    node = module.graph.insert(Many(), [x, None, x, None])
    assert len(node.operands) == 3
    assert [use.index for use in x.uses] == [0, 2]
    assert x.users == (node,)
    y = module.graph.add_input("y", F)
    node.set_operand(2, y)
    node.set_operands([y, x])
    assert ([u.index for u in x.uses], [u.index for u in y.uses]) == ([1], [0])
    node.set_operands([])
    assert not x.is_used
    assert not y.is_used


def test_replacing_uses_reaches_nodes_outputs_and_spares_some(module: Module, x: Value):
    a = module.graph.insert(One(), [x], None, ["a"])
    b = module.graph.insert(One(), [a.result, a.result], None, ["b"])
    kept = module.graph.insert(One(), [a.result], None, ["kept"])
    module.graph.set_outputs([a.result, b.result, a.result])
    a.result.replace_uses(x, keep=[kept])
    assert b.operands == (x, x)
    assert kept.operands == (a.result,)
    assert module.graph.outputs == (x, b.result, x)
    assert verify(module) == []


def test_erasing_needs_results_that_nobody_reads(module: Module, x: Value):
    a = module.graph.insert(One(), [x], None, ["a"])
    b = module.graph.insert(One(), [a.result], None, ["b"])
    with pytest.raises(ValueError, match="can't erase 'a': %a is still read"):
        module.graph.erase(a)
    module.graph.erase(b)
    module.graph.erase(a)
    assert not x.is_used
    assert len(module.graph) == 0
    assert module.value("a") is None
    assert (a.erased, b.erased) == (True, True)


def test_erasing_while_walking(module: Module, x: Value):
    for _ in range(5):
        module.graph.insert(One(), [x])
    for node in module.graph.nodes():
        module.graph.erase(node)
    assert list(module.graph.nodes()) == []
    assert verify(module) == []


def test_moving(module: Module, x: Value):
    a, b, c = (module.graph.insert(One(), [x], None, [n]) for n in "abc")
    module.graph.move(a, None)
    assert order(module.graph) == ["b", "c", "a"]
    module.graph.move(c, b)
    assert order(module.graph) == ["c", "b", "a"]
    assert verify(module) == []


def test_nested_graphs_go_with_their_node(module: Module, x: Value):
    inner = Graph(module)
    i = inner.add_input("i", F)
    node = inner.insert(One(), [x, i], None, ["deep"])
    inner.set_outputs([node.result])
    owner = module.graph.insert(Many(), [], graphs=[inner])
    assert inner.owner is owner
    assert owner.captures() == [x]
    assert [n.name for n in module.walk()] == [owner.name, "deep"]
    module.graph.erase(owner)
    assert not x.is_used
    assert list(module.value_names()) == ["x"]


def test_renaming(module: Module, x: Value):
    module.graph.add_input("y", F)
    x.rename("x")
    x.rename("z")
    assert module.value("z") is x
    assert module.value("x") is None
    with pytest.raises(ValueError, match="'%y' is taken"):
        x.rename("y")
    assert x.name == "z"
    assert module.value("z") is x


def test_fresh_names(module: Module, x: Value):
    assert module.fresh_name("y") == "y"
    assert module.fresh_name("x") == "x_1"
    module.graph.add_input("x_1", F)
    assert module.fresh_name("x") == "x_2"


def test_absent_results(module: Module, x: Value):
    node = module.graph.insert(Many(), [x], [F, None, F], ["a", None, "c"])
    assert [r.name if r else None for r in node.results] == ["a", None, "c"]
    headless = module.graph.insert(Many(), [x], [None, F], [None, "h"])
    assert headless.name == "h"
    with pytest.raises(ValueError, match="no first result"):
        _ = headless.result


def test_operands_by_name(module: Module, x: Value):
    node = module.graph.insert(One(), [x])
    assert node.operand("x") is x
    assert node.need("x") is x
    assert node.operand("b") is None
    with pytest.raises(KeyError, match="lacks its operand 'b'"):
        node.need("b")
    with pytest.raises(KeyError, match="no operand 'c'"):
        node.operand("c")


def test_small_integer_constants_are_known_to_inference(module: Module):
    shape = module.add_constant("s", Data.of(np.array([2, 3])))
    large = module.add_constant("l", Data.of(np.arange(100)))
    elided = module.add_constant("e", Data.elided(Elem.I64, (2,), "00"))
    node = module.graph.insert(Many(), [shape, large, elided])
    values = [t.value for t in node.operand_types() if isinstance(t, TensorType)]
    assert values == [(2, 3), None, None]


def test_constants_that_nobody_reads(module: Module, x: Value):
    used = module.add_constant("used", Data.of(np.zeros(2, np.float32)))
    module.add_constant("unused", Data.of(np.zeros(2, np.float32)))
    module.graph.insert(One(), [x, used])
    assert module.drop_unused_constants() == 1
    assert list(module.constants) == ["used"]
    assert module.value("unused") is None


def test_modules_are_equal_when_their_texts_are():
    a, b = Module("m"), Module("m")
    a.graph.add_input("x", F)
    assert a != b
    b.graph.add_input("x", F)
    assert a == b
    assert a != "m"


def test_a_node_moves_out_of_a_nested_graph(module: Module, x: Value):
    body = Graph(module)
    first, second = body.insert(One(), [x]), body.insert(One(), [x])
    owner = module.graph.insert(Many(), [x], graphs=[body])
    module.graph.move(first, before=owner)
    assert (list(module.graph.nodes()), list(body.nodes())) == ([first, owner], [second])
    assert (len(module.graph), len(body)) == (2, 1)
    assert first.graph is first.result.graph is module.graph
    module.graph.move(second, before=None)
    assert list(module.graph.nodes()) == [first, owner, second]
    assert not list(body.nodes())


def test_results_and_inputs_are_dropped_by_place(module: Module, x: Value):
    node = module.graph.insert(Many(), [x], names=["a", "b"])
    reader = module.graph.insert(One(), [node.results[1]])
    with pytest.raises(ValueError, match="%b: it is still read"):
        node.drop_results([1])
    node.drop_results([0])
    assert [(r.name, r.index) for r in node.present_results] == [("b", 0)]
    assert module.value("a") is None
    with pytest.raises(ValueError, match="%x: it is still read"):
        module.graph.drop_inputs([0])
    other = module.graph.add_input("other", F)
    node.set_operands([other])
    module.graph.drop_inputs([0])
    assert [(v.name, v.index) for v in module.graph.inputs] == [("other", 0)]
    module.graph.set_outputs([reader.result])
    assert not verify(module)
