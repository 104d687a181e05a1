"""A pass counts every change: the verifier between passes holds one that claims none to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from qdqc.pipeline.manager import run
from qdqc.text.parser import parse_module

MODULE = """module @m {
  const %w : f32[1,1,1,1] = dense[2]
  const %unused : f32[] = dense[3]
  graph (%x : f32[1,1,2,2]) -> (%y) {
    %y = conv(%x, %w) : f32[1,1,2,2] mode(F32)
  }
}"""


@pytest.mark.parametrize("name", ["quantize", "correct-bias"])
def test_nothing_to_quantize_but_something_to_tidy(tmp_path: Path, name: str) -> None:
    """No node is integer, yet the unused constant goes, and with quantize the mode."""
    table = tmp_path / "t.cali_table"
    table.write_text("x 1.0 -1.0 1.0\ny 1.0 -1.0 1.0\n")
    pass_ = name if name == "quantize" else f'{name}{{table="{table}"}}'
    done = run(parse_module(MODULE), pass_)
    assert list(done.constants) == ["w"]
    assert [n.op.name for n in done.graph.nodes()] == ["conv"]
    again = run(done, name if name == "quantize" else pass_)
    assert [n.mode for n in again.graph.nodes()] == [n.mode for n in done.graph.nodes()]
