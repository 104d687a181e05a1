"""Modules broken by hand in ways that no edit can reach, and the words for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qdqc.diagnostics import QdqcError
from qdqc.ir.clone import clone
from qdqc.ir.core import Node, Value
from qdqc.ir.data import Data
from qdqc.ir.graph import Graph, Module
from qdqc.ir.types import Elem, Quant, SequenceType, TensorType
from qdqc.ir.verify import check, verify
from qdqc.text.parser import parse_module
from qdqc.text.printer import print_module

TEXT = """\
module @m {
  const %w : f32[2] = dense[1, 2]
  graph (%c : bool[], %x : f32[2]) -> (%z) {
    %a = relu(%x) : f32[2] loc("/a")
    %y = if(%c) : f32[2] {
      graph () -> (%t) {
        %t = add(%a, %w) : f32[2] loc("/t")
      }
      graph () -> (%x) {
      }
    } loc("/if")
    %z = relu(%y) : f32[2] loc("/z")
  }
}
"""


class Broken:
    """The module of ``TEXT`` with its parts at hand."""

    def __init__(self) -> None:
        self.module = parse_module(TEXT)
        self.graph = self.module.graph
        self.nodes: list[Node[Any]] = list(self.module.walk())
        self.a, self.cond, self.t, self.z = self.nodes
        self.branch = self.cond.graphs[0]
        self.c, self.x = self.graph.inputs
        self.w = self.module.constants["w"]

    @property
    def messages(self) -> str:
        return "\n".join(d.render() for d in verify(self.module))


def index_of_an_input(b: Broken) -> None:
    b.c.index = 1


def graph_of_an_input(b: Broken) -> None:
    b.x.graph = b.branch


def producer_of_an_input(b: Broken) -> None:
    b.x.producer = b.a


def index_of_a_result(b: Broken) -> None:
    b.a.result.index = 1


def graph_of_a_result(b: Broken) -> None:
    b.t.result.graph = b.graph


def key_of_a_constant(b: Broken) -> None:
    b.module.constants["v"] = b.module.constants.pop("w")


def type_of_a_constant(b: Broken) -> None:
    b.w.type = SequenceType(TensorType(Elem.F32))


def scale_of_a_constant(b: Broken) -> None:
    b.w.type = TensorType(Elem.F32, (2,), Quant.make(0.1))


def count_of_nodes(b: Broken) -> None:
    b.branch._count = 2


def module_of_a_graph(b: Broken) -> None:
    b.branch.module = Module()


def use_of_an_output(b: Broken) -> None:
    b.z.result.drop_use(b.graph, 0)


def use_twice(b: Broken) -> None:
    b.w.add_use(b.z, 5)


def a_captured_value_that_comes_later(b: Broken) -> None:
    b.t.set_operand(0, b.z.result)


def its_own_result_inside_it(b: Broken) -> None:
    b.t.set_operand(0, b.cond.result)


def an_input_of_another_graph(b: Broken) -> None:
    other = b.branch.add_input("i", TensorType(Elem.F32, (2,)))
    b.z.set_operand(0, other)


def two_values_of_a_name(b: Broken) -> None:
    b.module.leave(b.x)
    Value(b.module, "x", TensorType(Elem.F32, (2,)))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (index_of_an_input, "graph input %c does not know its place"),
        (graph_of_an_input, "graph input %x does not know its place"),
        (producer_of_an_input, "graph input %x does not know its place"),
        (index_of_a_result, "'relu': result %a does not know its producer"),
        (graph_of_a_result, "'add': result %t does not know its producer"),
        (key_of_a_constant, "constant %w is entered as 'v'"),
        (type_of_a_constant, "constant %w is not a tensor"),
        (scale_of_a_constant, "constant %w: f32 can't be quantized"),
        (count_of_nodes, "'if': a graph has 1 nodes, but counts 2"),
        (module_of_a_graph, "'if': a nested graph does not belong to the node"),
        (use_of_an_output, "the uses of %z are not what reads it"),
        (use_twice, "the uses of %w are not what reads it (listed: <add t>, <relu z>)"),
        (a_captured_value_that_comes_later, "'add': operand %z is not defined before the node"),
        (its_own_result_inside_it, "'add': operand %y is not defined before the node"),
        (an_input_of_another_graph, "'relu': operand %i is an input of another graph"),
        (two_values_of_a_name, "the name %x belongs to another value"),
    ],
)
def test_what_is_broken_is_named(how: Callable[[Broken], None], message: str):
    broken = Broken()
    assert broken.messages == ""
    how(broken)
    assert message in broken.messages


def test_a_located_finding_shows_the_line_of_the_text():
    broken = Broken()
    broken.t.set_operand(0, broken.z.result)
    with pytest.raises(QdqcError) as caught:
        check(broken.module, "pass 'hoist' (1 of 2)")
    lines = str(caught.value).split("\n")
    assert lines[0].startswith("<text>:7:14: error: 'add': operand %z")
    assert lines[1].strip().startswith("%t = add(%a, %w)")
    assert 'note: ONNX node "/t"' in lines
    assert "note: %w : f32[2] is a constant" in lines
    assert "note: %z : f32[2] is produced by 'relu', ONNX node \"/z\"" in lines
    assert lines[-1] == "note: found after pass 'hoist' (1 of 2)"


def test_the_first_finding_counts_the_others():
    broken = Broken()
    for node in (broken.a, broken.t, broken.z):
        node.set_operands([])
    with pytest.raises(QdqcError) as caught:
        check(broken.module)
    assert caught.value.diagnostic.node == "relu"
    assert caught.value.diagnostic.notes[-1].endswith("more such errors follow from here on")


def test_inference_is_not_asked_about_wrong_counts():
    """Else one mistake would be told twice, the second time in worse words."""
    broken = Broken()
    broken.z.set_operands([])
    assert len(verify(broken.module)) == 1


def test_branches_that_give_different_numbers_of_values():
    broken = Broken()
    broken.branch.set_outputs([])
    assert "'if': branches give 0 and 1 values" in broken.messages


def test_branches_that_give_different_element_types():
    broken = Broken()
    i = broken.module.add_constant("i", Data.of(np.array([1, 2])))
    broken.branch.set_outputs([i])
    assert "'if': branches give i64 and f32 for one result" in broken.messages


def test_more_results_than_the_op_gives():
    broken = Broken()
    broken.cond.results.append(
        Value(broken.module, "more", TensorType(Elem.F32), broken.cond, 1, broken.graph)
    )
    assert "'if': gives 1 results, %more is one more" in broken.messages


@pytest.mark.parametrize(
    "how",
    [
        a_captured_value_that_comes_later,
        its_own_result_inside_it,
        scale_of_a_constant,
        lambda b: b.z.set_operands([]),
        lambda b: b.graph.set_outputs([b.t.result]),
    ],
)
def test_a_broken_module_can_be_shown_and_copied(how: Callable[[Broken], None]):
    """Which is what a crash reproducer needs."""
    broken = Broken()
    how(broken)
    copy = clone(broken.module)
    assert print_module(copy) == print_module(broken.module)
    assert [d.render() for d in verify(copy)] == [d.render() for d in verify(broken.module)]


def test_erasing_a_node_clears_what_is_inside_it():
    broken = Broken()
    broken.z.set_operands([broken.x])
    broken.graph.erase(broken.cond)
    assert broken.messages == ""
    assert broken.module.value("t") is None
    assert not broken.w.is_used
    assert list(broken.branch.nodes()) == []
    assert broken.module.drop_unused_constants() == 1


def test_clearing_a_graph_with_inputs_frees_their_names():
    module = Module()
    body = Graph(module)
    i = body.add_input("i", TensorType(Elem.F32))
    body.set_outputs([i])
    body.clear()
    assert module.value("i") is None
    assert (body.inputs, body.outputs) == ([], ())
