"""Copies of modules with everything that a module can hold."""

from __future__ import annotations

from qdqc.ir.clone import clone
from qdqc.ir.graph import Module
from qdqc.text.parser import parse_module
from qdqc.text.printer import print_module

TEXT = """\
module @all {opsets = {"" = 17, "com.microsoft" = 1}, notes = ["a", "b"]} {
  const %w : f32[2] = dense[1, 2]
  const %big : f32[4,8] = elided("sha256:0123abcd")
  graph (%c : bool[], %x : f32[2] range(-1, 2, 2) {mean = [1, 2]}) -> (%y, %x) {
    %y = if(%c) : f32[2] {
      graph () -> (%t) {
        %t = add(%x, %w) : f32[2] mode(F32) loc("/t")
      }
      graph () -> (%e) {
        %e = relu(%x) : f32[2] range(0, 2, 2) loc("/e", "/f")
      }
    } loc("/if")
  }
}
"""


def test_the_copy_prints_the_same() -> None:
    module = parse_module(TEXT)
    assert print_module(clone(module)) == print_module(module) == TEXT


def test_nothing_that_changes_is_shared() -> None:
    module = parse_module(TEXT)
    copy = clone(module)
    copy.opsets["x"] = 1
    copy.header["notes"] = ()
    copy.graph.input_attrs["x"]["mean"] = 3
    for node in copy.walk():
        node.mode = "INT8"
    copy.graph.set_outputs([])
    for node in list(copy.graph.nodes()):
        copy.graph.erase(node)
    copy.drop_unused_constants()
    assert print_module(module) == TEXT


def test_edges_point_into_the_copy() -> None:
    module = parse_module(TEXT)
    copy = clone(module)
    for node in copy.walk():
        assert node.graph.module is copy
        assert all(value.module is copy for value in node.present_operands)
        assert all(graph.owner is node for graph in node.graphs)
    branch = next(copy.graph.nodes()).graphs[0]
    assert branch.outputs[0].producer is next(branch.nodes())
    assert {v.name for v in next(copy.graph.nodes()).captures()} == {"x"}


def test_a_module_with_a_cycle_is_copied_as_it_is() -> None:
    module = parse_module(TEXT.replace("%y, %x", "%y"))
    graph = module.graph
    x = graph.inputs[1]
    first = graph.insert(next(next(graph.nodes()).graphs[1].nodes()).op, [x], None, ["a"])
    second = graph.insert(first.op, [first.result], None, ["b"])
    first.set_operand(0, second.result)
    copy = clone(module)
    assert print_module(copy) == print_module(module)
    a = copy.value("a")
    assert a is not None
    assert a.producer is not None
    assert a.producer.operands[0] is copy.value("b")


def test_an_empty_module() -> None:
    assert print_module(clone(Module("empty"))) == print_module(Module("empty"))
