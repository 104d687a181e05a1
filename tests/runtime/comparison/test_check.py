"""Holding a module against another, folding constants."""

from __future__ import annotations

from typing import Any

import numpy as np

from qdqc.ir.clone import clone
from qdqc.ir.graph import Module
from qdqc.runtime.comparison.check import check_against, shared_values
from qdqc.runtime.comparison.compare import Level
from qdqc.runtime.sessions.fold import evaluate
from qdqc.text.parser import parse_module

Samples = list[dict[str, Any]]


def test_a_module_equals_its_clone(tiny: Module, samples: Samples) -> None:
    comparison, values = check_against(tiny, clone(tiny), samples[:2], (0.99, 0.99))
    assert {r.level for r in comparison.rows} == {Level.EQUAL}
    assert [r.name for r in comparison.rows] == ["r1", "c2", "r2", "c3", "p", "f", "y"]
    assert set(values) == {"x", "r1", "c2", "r2", "c3", "p", "f", "y"}


def test_the_first_difference_is_found(tiny: Module, samples: Samples) -> None:
    other = clone(tiny)
    node = next(n for n in other.graph.nodes() if n.name == "c3")
    node.set_operand(1, other.add_constant("zeros", _zeros(other, "w3")))
    comparison, _ = check_against(other, tiny, samples[:1], (0.99, 0.99))
    assert comparison.first_failure is not None
    assert comparison.first_failure.name == "c3"
    outputs, _ = check_against(other, tiny, samples[:1], (0.99, 0.99), every_value=False)
    assert [r.name for r in outputs.rows] == ["y"]


def _zeros(module: Module, like: str) -> Any:
    from qdqc.ir.data import Data

    return Data.of(np.zeros_like(module.constants[like].data.array()))


def test_a_lowered_module_shares_the_float_names(tiny: Module, lowered: Module) -> None:
    assert shared_values(lowered, tiny) == ["r1", "c2", "r2", "c3", "p", "f", "y"]


CONSTANTS = """\
module @m {opsets = {"" = 17}} {
  const %a : f32[3] = dense[1, 2, 3]
  const %b : f32[3] = dense[4, 5, 6]
  graph (%x : f32[3]) -> (%y) {
    %s = add(%a, %b) : f32[3]
    %t = mul(%s, %a) : f32[3]
    %y = add(%x, %t) : f32[3]
  }
}
"""


def test_nodes_that_read_constants_alone_are_evaluated() -> None:
    module = parse_module(CONSTANTS)
    before = parse_module(CONSTANTS)
    nodes = [n for n in module.walk() if n.name in "st"]
    found = evaluate(nodes, ["t", "s"])
    np.testing.assert_array_equal(found["s"], [5, 7, 9])
    np.testing.assert_array_equal(found["t"], [5, 14, 27])
    assert module == before
