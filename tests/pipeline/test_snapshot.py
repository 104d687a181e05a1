"""Snapshots see every change that a text shows, and nothing where there is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qdqc.ir.core import Node
from qdqc.ir.data import Data
from qdqc.ir.graph import Module
from qdqc.ir.loc import Loc
from qdqc.ir.op import Op
from qdqc.ir.types import Elem, Range, TensorType
from qdqc.ops import Clip, Relu, Sigmoid
from qdqc.pipeline.snapshot import snapshot
from qdqc.text.parser import parse_module
from qdqc.text.printer import print_module

TEXT = """\
module @m {opsets = {"" = 17}, source = "a"} {
  const %w : f32[2] = dense[1, 2]
  graph (%x : f32[2] {mean = [1]}, %c : bool[]) -> (%y) {
    %a = clip(%x) {max = 4} : f32[2] mode(INT8) loc("/a")
    %b = add(%a, %w) : f32[2]
    %y = if(%c) : f32[2] {
      graph () -> (%t) {
        %t = relu(%b) : f32[2]
      }
      graph () -> (%e) {
        %e = neg(%b) : f32[2]
      }
    }
  }
}
"""


def node(module: Module, name: str) -> Node[Any]:
    value = module.value(name)
    assert value is not None
    assert value.producer is not None
    return value.producer


def set_op(name: str, op: Op) -> Callable[[Module], None]:
    return lambda m: setattr(node(m, name), "op", op)


def set_type(name: str, type: TensorType) -> Callable[[Module], None]:
    return lambda m: setattr(m.value(name), "type", type)


F2 = TensorType(Elem.F32, (2,))

CHANGES: dict[str, Callable[[Module], object]] = {
    "name of the module": lambda m: setattr(m, "name", "n"),
    "header": lambda m: m.header.update(source="b"),
    "opset": lambda m: m.opsets.update({"": 18}),
    "op": set_op("t", Sigmoid()),
    "attribute": set_op("a", Clip(max=5)),
    "sign of a zero": set_op("a", Clip(min=-0.0, max=4)),
    "type": set_type("b", TensorType(Elem.F32, (None,))),
    "range": set_type("b", TensorType(Elem.F32, (2,)).with_range(Range(0.0, 1.0, 1.0))),
    "type of a constant": set_type("w", TensorType(Elem.F32, (None,))),
    "name of a result": lambda m: node(m, "b").result.rename("bb"),
    "name of a constant": lambda m: m.constants["w"].rename("ww"),
    "name of a nested result": lambda m: node(m, "t").result.rename("tt"),
    "mode": lambda m: setattr(node(m, "a"), "mode", "F32"),
    "location": lambda m: setattr(node(m, "a"), "loc", Loc(("/b",))),
    "operand": lambda m: node(m, "b").set_operand(0, m.graph.inputs[0]),
    "contents": lambda m: setattr(m.constants["w"], "data", Data.of(np.array([1, 3], np.float32))),
    "attribute of an input": lambda m: m.graph.input_attrs["x"].update(mean=(2,)),
    "a new constant": lambda m: m.add_constant("v", Data.of(np.zeros(2, np.float32))),
    "a new node": lambda m: m.graph.insert(Relu(), [m.graph.inputs[0]]),
    "a new input": lambda m: m.graph.add_input("z", F2),
    "an output": lambda m: m.graph.set_output(0, m.graph.inputs[0]),
    "output of a nested graph": lambda m: node(m, "y").graphs[0].set_output(0, m.graph.inputs[0]),
    "order": lambda m: m.graph.move(node(m, "a"), None),
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_is_seen(name: str) -> None:
    module = parse_module(TEXT)
    text, before = print_module(module), snapshot(module)
    assert snapshot(module) == before
    CHANGES[name](module)
    assert print_module(module) != text
    assert snapshot(module) != before


@pytest.mark.parametrize(
    "change",
    [
        set_op("a", Clip(max=4)),
        set_type("b", TensorType(Elem.F32, (2,), value=None)),
        lambda m: setattr(node(m, "a"), "loc", Loc(("/a",))),
        lambda m: node(m, "b").set_operands(node(m, "b").operands),
        lambda m: m.header.update(source="a"),
    ],
)
def test_the_same_put_again_is_no_change(change: Callable[[Module], object]) -> None:
    module = parse_module(TEXT)
    text, before = print_module(module), snapshot(module)
    change(module)
    assert print_module(module) == text
    assert snapshot(module) == before
