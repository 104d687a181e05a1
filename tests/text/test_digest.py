"""The digest of a model: what counts, and what does not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from qdqc.ir.data import Data
from qdqc.ir.graph import Module
from qdqc.ir.types import Range
from qdqc.text.digest import module_digest
from qdqc.text.parser import parse_module
from qdqc.text.printer import print_module

TEXT = """\
module @m {opsets = {"" = 17}} {
  const %w : f32[2] = dense[1, 2]
  graph (%x : f32[2], %c : bool[]) -> (%y) {
    %a = add(%x, %w) : f32[2] loc("/a")
    %y = if(%c) : f32[2] {
      graph () -> (%t) {
        %t = relu(%a) : f32[2]
      }
      graph () -> (%a) {
      }
    }
  }
}
"""


def calibrated(module: Module) -> None:
    for name in ("x", "a", "t", "y"):
        value = module.value(name)
        assert value is not None
        value.type = value.tensor.with_range(Range(-1, 1, 1))


def planned(module: Module) -> None:
    for node in module.walk():
        node.mode = "INT8"


def annotated(module: Module) -> None:
    module.header["pipeline"] = "canonicalize"
    module.header["source"] = "other.onnx"


def other_weights(module: Module) -> None:
    module.constants["w"].data = Data.of(np.array([1, 3], np.float32))


def other_name(module: Module) -> None:
    module.constants["w"].rename("v")


def other_node(module: Module) -> None:
    module.graph.insert(parse_relu(), [module.value("x")], None, ["more"])


def parse_relu():
    text = "module @m { graph (%x : f32[2]) -> (%y) { %y = relu(%x) : f32[2] } }"
    return next(parse_module(text).walk()).op


@pytest.mark.parametrize("change", [calibrated, planned, annotated])
def test_the_model_stays_the_same(change: Callable[[Module], None]):
    module = parse_module(TEXT)
    before = module_digest(module)
    change(module)
    assert print_module(module) != TEXT
    assert module_digest(module) == before


@pytest.mark.parametrize("change", [other_weights, other_name, other_node])
def test_the_model_is_another_one(change: Callable[[Module], None]):
    module = parse_module(TEXT)
    before = module_digest(module)
    change(module)
    assert module_digest(module) != before


def test_taking_the_digest_changes_nothing():
    module = parse_module(TEXT)
    calibrated(module)
    planned(module)
    text = print_module(module)
    found = module_digest(module)
    assert len(found) == 64
    assert print_module(module) == text
    assert module_digest(module) == found


def test_contents_count_whether_inline_or_not():
    """Larger weights count by their digest: no byte of them is printed, one makes a difference."""
    found: set[str] = set()
    for last in (0, 1):
        module = parse_module(TEXT)
        weights = np.zeros(1000, np.float32)
        weights[-1] = last
        module.add_constant("big", Data.of(weights))
        found.add(module_digest(module))
    assert len(found) == 2
