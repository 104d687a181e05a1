"""What a rule's Rewriter makes: names, types, modes, constants, and reasons."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qdqc.ir.core import Node, Value
from qdqc.ir.data import Data
from qdqc.ir.graph import Graph, Module
from qdqc.ir.loc import Loc
from qdqc.ir.types import Elem, OptionalType, Quant, Range, SequenceType, TensorType
from qdqc.ir.verify import verify
from qdqc.ops import Add, Relu, Sigmoid
from qdqc.ops.opaque import Opaque
from qdqc.pipeline.pass_ import PassContext
from qdqc.rewrite.driver import apply
from qdqc.rewrite.rewriter import Rewriter

F = TensorType(Elem.F32, (2,))
MIX = Opaque(type="Mix")


@pytest.fixture
def root() -> Node[Any]:
    """relu(x) named y, in mode INT8, the graph's output."""
    module = Module()
    x = module.graph.add_input("x", F)
    node = module.graph.insert(Relu(), [x], None, ["y"], loc=Loc(("/relu",)), mode="INT8")
    module.graph.set_outputs([node.result])
    return node


@pytest.fixture
def rw(root: Node[Any]) -> Rewriter:
    return Rewriter(root, "the-rule", PassContext(mismatches=[]))


def test_new_nodes_stand_before_the_root(root: Node[Any], rw: Rewriter) -> None:
    first = rw.op(Sigmoid(), root.operands[0])
    second = rw.op(Sigmoid(), first)
    assert list(root.graph.nodes()) == [first.producer, second.producer, root]
    assert rw.created == [first.producer, second.producer]
    assert verify(root.graph.module) == []


def test_names_are_made_of_the_roots(root: Node[Any], rw: Rewriter) -> None:
    found = [rw.op(Sigmoid(), root.operands[0]).name for _ in range(3)]
    assert found == ["y_sigmoid", "y_sigmoid_1", "y_sigmoid_2"]
    assert rw.op(Sigmoid(), root.operands[0], name="inner").name == "inner"
    assert rw.op(Sigmoid(), root.operands[0], name="inner").name == "inner_1"
    assert rw.constant(1.0).name == "y_const"
    assert rw.constant(1.0, name="w").name == "w"
    assert rw.constant(1.0, name="w").name == "w_1"


def test_location_and_mode_are_the_roots(root: Node[Any], rw: Rewriter) -> None:
    node = rw.op(Sigmoid(), root.operands[0]).producer
    other = rw.op(Sigmoid(), root.operands[0], mode="F32").producer
    assert node is not None
    assert other is not None
    assert (node.loc, node.mode) == (root.loc, "INT8")
    assert other.mode == "F32"


def test_types_are_inferred_unless_given(root: Node[Any], rw: Rewriter) -> None:
    assert rw.op(Sigmoid(), root.operands[0]).type == F
    given = TensorType(Elem.U8, (2,), Quant.make(0.1, 3))
    found = rw.op(Sigmoid(), root.operands[0], type=given)
    assert found.type == given
    assert rw.typed == {found.producer}


def test_operands_that_do_not_fit_leave_no_trace(root: Node[Any], rw: Rewriter) -> None:
    module = root.graph.module
    other = module.add_constant("three", Data.of(np.ones(3, np.float32)))
    with pytest.raises(ValueError, match="do not broadcast"):
        rw.op(Add(), root.operands[0], other)
    assert rw.created == []
    assert not other.is_used
    assert len(root.graph) == 1


def test_nodes_of_several_results(root: Node[Any], rw: Rewriter) -> None:
    node = rw.node(MIX, [root.operands[0]], [F, F, F], ["part"])
    assert [r.name for r in node.present_results] == ["part", "part_1", "part_2"]
    again = rw.node(MIX, [root.operands[0]], [F, F])
    assert [r.name for r in again.present_results] == ["y_onnx", "y_onnx_1"]


@pytest.mark.parametrize(
    ("array", "elem", "expected"),
    [
        (1.5, Elem.F32, Elem.F32),
        ([1, 2], Elem.I4, Elem.I4),
        (np.ones(2, np.float16), None, Elem.F16),
        (np.array([1, 2]), None, Elem.I64),
        ([True], None, Elem.BOOL),
        (["a", "b"], None, Elem.STRING),
    ],
)
def test_constants(root: Node[Any], rw: Rewriter, array: Any, elem: Any, expected: Elem) -> None:
    made = rw.constant(array, elem=elem)
    assert made.type == TensorType(expected, np.shape(array))
    assert rw.constants == [made]
    assert root.graph.module.constants[made.name] is made
    if expected is not Elem.STRING:
        assert np.array_equal(made.data.array().astype(np.float64), np.asarray(array, np.float64))


def test_arrays_are_those_of_plain_constants_alone(root: Node[Any], rw: Rewriter) -> None:
    module = root.graph.module
    plain = module.add_constant("plain", Data.of(np.arange(2)))
    elided = module.add_constant("elided", Data.elided(Elem.F32, (2,), "00"))
    kind = TensorType(Elem.I8, (2,), Quant.make(0.5))
    quantized = module.add_constant("q", Data.of(np.zeros(2, np.int8)), kind)
    array = rw.array(plain)
    assert array is not None
    assert array.tolist() == [0, 1]
    for value in (None, elided, quantized, root.result, root.operands[0]):
        assert rw.array(value) is None


def test_declining_gives_the_reason_with_its_place(root: Node[Any], rw: Rewriter) -> None:
    assert rw.no("not today") is None
    assert rw.no("not this", root.operands[0]) is None
    first, second = rw.ctx.mismatches or ()
    assert (first.rule, first.node, first.op) == ("the-rule", "y", "relu")
    assert (first.reason, first.value, first.loc) == ("not today", None, root.loc)
    assert second.value == "%x"
    assert second.depth == first.depth + 1


def test_a_value_with_one_use(root: Node[Any], rw: Rewriter) -> None:
    x = root.graph.inputs[0]
    assert rw.only_use(x)
    assert not rw.only_use(root.result), "a graph output is read by whoever runs the graph"
    root.graph.insert(Sigmoid(), [x])
    assert not rw.only_use(x)


def test_a_value_that_is_read_twice_by_one_node() -> None:
    module = Module()
    x = module.graph.add_input("x", F)
    node = module.graph.insert(Add(), [x, x])
    assert not Rewriter(node, "r", PassContext()).only_use(x)


def test_a_value_of_an_outer_graph_is_not_a_bodys_own() -> None:
    module = Module()
    x = module.graph.add_input("x", F)
    body = Graph(module)
    node = body.insert(Relu(), [x])
    body.set_outputs([node.result])
    module.graph.insert(MIX, [], [F], ["y"], graphs=[body])
    assert len(x.uses) == 1
    assert not Rewriter(node, "r", PassContext()).only_use(x)


@pytest.mark.parametrize("odd", [SequenceType(F), OptionalType(F)])
def test_a_type_that_must_be_a_tensor(root: Node[Any], rw: Rewriter, odd: Any) -> None:
    found = root.graph.add_input("s", odd)
    assert rw.tensor(root.result) == F
    with pytest.raises(TypeError, match="%s is not a tensor"):
        rw.tensor(found)


@pytest.mark.parametrize("as_output", [False, True])
def test_constants_that_only_an_erased_body_read_go_with_it(as_output: bool) -> None:
    module = Module()
    x = module.graph.add_input("x", F)
    w = module.add_constant("w", Data.of(np.ones(2, np.float32)))
    kept = module.add_constant("kept", Data.of(np.ones(2, np.float32)))
    body, deep = Graph(module), Graph(module)
    inner = deep.insert(Add(), [kept, kept if as_output else w])
    deep.set_outputs([w if as_output else inner.result])
    body.set_outputs([body.insert(MIX, [], [F], ["i"], graphs=[deep]).result])
    node = module.graph.insert(Opaque(type="Old"), [x], [F], ["y"], graphs=[body])
    last = module.graph.insert(Add(), [node.result, kept])
    module.graph.set_outputs([last.result])

    def rule(node: Node[Any], rw: Rewriter) -> Value | None:
        return node.operands[0] if node.op.type == "Old" else None

    assert apply([(Opaque, "rule", rule)], module.graph, PassContext()) == 1
    assert list(module.constants) == ["kept"]
    assert verify(module) == []


def replace_mix(module: Module, new: TensorType | SequenceType) -> Value:
    """The value %y after a rule gave a node of that type for it."""

    def rule(node: Node[Any], rw: Rewriter) -> Value | None:
        if node.op.type != "Old":
            return None
        return rw.op(Opaque(type="New"), node.operands[0], type=new)

    assert apply([(Opaque, "rule", rule)], module.graph, PassContext()) == 1
    found = module.value("y")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (SequenceType(F), SequenceType(F), SequenceType(F)),
        (SequenceType(F), F, F),
        (F.with_range(Range(0, 1, 1)), TensorType(Elem.I64, (2,)), TensorType(Elem.I64, (2,))),
        (F, TensorType(Elem.F32), F),
        (TensorType(Elem.F32), F, F),
        (F.with_range(Range(0, 1, 1)), F, F.with_range(Range(0, 1, 1))),
        (
            F.with_range(Range(0, 1, 1)),
            TensorType(Elem.U8, (2,), Quant.make(1)),
            TensorType(Elem.U8, (2,), Quant.make(1)),
        ),
    ],
)
def test_what_a_new_value_inherits(old: Any, new: Any, expected: Any) -> None:
    module = Module()
    x = module.graph.add_input("x", F)
    node = module.graph.insert(Opaque(type="Old"), [x], [old], ["y"])
    module.graph.set_outputs([node.result])
    assert replace_mix(module, new).type == expected
