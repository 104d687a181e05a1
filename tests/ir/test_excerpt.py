"""Some nodes alone: what they read comes along, what they give are outputs."""

from __future__ import annotations

from qdqc.ir.excerpt import excerpt
from qdqc.ir.verify import verify
from qdqc.text.parser import parse_module
from qdqc.text.printer import print_module

TEXT = """\
module @whole {opsets = {"" = 17}} {
  const %w : f32[2] = dense[1, 2]
  const %other : f32[2] = dense[3, 4]
  graph (%x : f32[2]) -> (%d) {
    %a = relu(%x) : f32[2] range(0, 6, 6)
    %b = add(%a, %w) : f32[2] range(1, 8, 8) loc("/add")
    %c = mul(%b, %a) : f32[2] range(0, 48, 48)
    %d = sub(%c, %other) : f32[2]
  }
}
"""
ALONE = """\
module @excerpt {opsets = {"" = 17}} {
  const %w : f32[2] = dense[1, 2]
  graph (%a : f32[2]) -> (%c, %b) {
    %b = add(%a, %w) : f32[2] range(1, 8, 8) loc("/add")
    %c = mul(%b, %a) : f32[2] range(0, 48, 48)
  }
}
"""


def test_what_is_read_comes_along() -> None:
    whole = parse_module(TEXT)
    _, add, mul, _ = whole.graph.nodes()
    alone = excerpt([add, mul], ["c", "b"])
    verify(alone)
    assert print_module(alone) == ALONE
    assert print_module(whole) == TEXT, "the module itself stays"
