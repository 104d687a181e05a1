"""The pass manager: verification, honesty, failures, and what is recorded."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import pytest

from qdqc.diagnostics import Diagnostic, QdqcError
from qdqc.ir.clone import clone
from qdqc.ir.core import Node, Value
from qdqc.ir.data import Data
from qdqc.ir.graph import Graph, Module
from qdqc.ir.types import Elem, TensorType
from qdqc.ops import HardSwish, Relu, Sigmoid
from qdqc.pipeline.instrument import Instrument, PassRun, Where
from qdqc.pipeline.manager import PassError, PassManager
from qdqc.pipeline.pass_ import PASSES, Pass, PassContext
from qdqc.rewrite.pattern import PatternPass, Rewriter, rewrites
from qdqc.text.parser import parse_module
from qdqc.text.printer import print_module

TEXT = """\
module @tiny {opsets = {"" = 17}} {
  const %w : f32[2,2,1,1] = dense[1, 2, 3, 4]
  graph (%x : f32[N,2,4,4]) -> (%y) {
    %c = conv(%x, %w) : f32[N,2,4,4] loc("/conv")
    %y = relu(%c) : f32[N,2,4,4] loc("/relu")
  }
}
"""


@pytest.fixture(autouse=True)
def scratch() -> Generator[None]:
    with PASSES.scratch():
        yield


def tiny() -> Module:
    return parse_module(TEXT)


def passes() -> dict[str, type[Pass]]:
    """Passes of every temper; made anew for each test, inside its scratch registry."""

    class Swap(PatternPass):
        """Turn relu into sigmoid."""

        name = "t-swap"
        times: int = 1

        @rewrites(Relu)
        def swap(self, node: Node[Relu], rw: Rewriter) -> Value | None:
            return rw.op(Sigmoid(), node.operands[0])

    class Idle(Pass):
        """Do nothing and say so."""

        name = "t-idle"

        def run(self, graph: Graph, ctx: PassContext) -> int:
            return 0

    class Liar(Pass):
        """Change something and deny it."""

        name = "t-liar"

        def run(self, graph: Graph, ctx: PassContext) -> int:
            graph.module.header["touched"] = True
            return 0

    class Breaker(Pass):
        """Give a value a type that its op does not have."""

        name = "t-breaker"

        def run(self, graph: Graph, ctx: PassContext) -> int:
            graph.outputs[0].type = TensorType(Elem.F32, (7, 7))
            return 1

    class Refuser(Pass):
        """Refuse the model."""

        name = "t-refuser"

        def run(self, graph: Graph, ctx: PassContext) -> int:
            raise ctx.error("this can't be done", next(graph.nodes()), "do something else")

    class Crasher(Pass):
        """Fail by a defect."""

        name = "t-crasher"

        def run(self, graph: Graph, ctx: PassContext) -> int:
            ctx.warn("about to fail")
            raise IndexError("no such thing")

    class Warner(Pass):
        """Warn."""

        name = "t-warner"

        def run(self, graph: Graph, ctx: PassContext) -> int:
            ctx.warn("odd", next(graph.nodes()), "look here")
            return 0

    found = (Swap, Idle, Liar, Breaker, Refuser, Crasher, Warner)
    return {cls.name[2:]: cls for cls in found}


def test_a_pipeline_runs_in_order_and_is_recorded() -> None:
    known, module = passes(), tiny()
    report = PassManager([known["swap"](times=2), known["idle"]()]).run(module)
    assert [(r.name, r.changes) for r in report.runs] == [("t-swap", 1), ("t-idle", 0)]
    assert report.runs[0].statistics == {"swap": 1}
    assert report.changes == 1
    assert report.seconds > 0
    assert module.header["pipeline"] == "t-swap{times=2},t-idle"
    PassManager([known["idle"]()]).run(module)
    assert module.header["pipeline"] == "t-swap{times=2},t-idle,t-idle"
    assert [n.op for n in module.walk()][1] == Sigmoid()


def test_an_empty_pipeline_leaves_the_header_alone() -> None:
    module = tiny()
    PassManager([]).run(module)
    assert print_module(module) == TEXT


def test_a_broken_module_is_blamed_on_its_pass() -> None:
    known = passes()
    with pytest.raises(QdqcError) as caught:
        PassManager([known["idle"](), known["breaker"](), known["idle"]()]).run(tiny())
    diagnostic = caught.value.diagnostic
    assert diagnostic.node == "relu"
    assert diagnostic.notes[-1].startswith("found after pass 't-breaker' (2 of 3); ")
    assert "--crash-reproducer crash.qir" in diagnostic.notes[-1]


def test_without_verify_each_nobody_looks() -> None:
    known, module = passes(), tiny()
    PassManager([known["breaker"](), known["liar"]()], verify_each=False).run(module)
    assert module.header["pipeline"] == "t-breaker,t-liar"


def test_a_module_that_does_not_hold_together_reaches_no_pass() -> None:
    """A text reads without its ops being asked; a pass may rely on what they declare."""
    module = parse_module("module @m { graph (%x : f32[2]) -> (%y) { %y = add(%x) : f32[2] } }")
    with pytest.raises(QdqcError, match="lacks its operand 'b'"):
        PassManager([passes()["idle"]()]).run(module)
    PassManager([passes()["idle"]()], verify_each=False).run(module)


def test_a_pass_that_denies_its_change_is_caught() -> None:
    with pytest.raises(QdqcError, match="pass 't-liar' said that it changed nothing"):
        PassManager([passes()["liar"]()]).run(tiny())


def test_honesty_looks_at_contents_of_constants() -> None:
    class Weights(Pass):
        """Change a large weight and deny it."""

        name = "t-weights"

        def run(self, graph: Graph, ctx: PassContext) -> int:
            big = graph.module.constants["big"]
            big.data = Data.of(np.full((64,), 2, np.float32))
            return 0

    module = tiny()
    module.add_constant("big", Data.of(np.ones((64,), np.float32)))
    with pytest.raises(QdqcError, match="said that it changed nothing"):
        PassManager([Weights()]).run(module)


def test_a_refusal_keeps_its_place_and_names_the_pass() -> None:
    with pytest.raises(QdqcError) as caught:
        PassManager([passes()["refuser"]()]).run(tiny())
    text = str(caught.value)
    assert "error: 'conv': this can't be done" in text
    assert 'note: ONNX node "/conv"' in text
    assert "note: do something else" in text
    assert "note: found after pass 't-refuser' (1 of 1)" in text


def test_a_crash_names_the_pass_and_keeps_its_cause() -> None:
    seen: list[Diagnostic] = []
    with pytest.raises(PassError, match=r"pass 't-crasher' \(1 of 1\) failed with IndexError") as e:
        PassManager([passes()["crasher"]()], warn=seen.append).run(tiny())
    assert isinstance(e.value.__cause__, IndexError)
    assert [w.message for w in seen] == ["about to fail"]


def test_a_failed_pipeline_is_not_recorded() -> None:
    known, module = passes(), tiny()
    with pytest.raises(QdqcError):
        PassManager([known["swap"](), known["refuser"]()]).run(module)
    assert "pipeline" not in module.header


def test_warnings_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    PassManager([passes()["warner"]()]).run(tiny())
    out, err = capsys.readouterr()
    assert out == ""
    assert err.split("\n") == [
        "<text>:4:10: warning: 'conv': odd",
        '      %c = conv(%x, %w) : f32[N,2,4,4] loc("/conv")',
        "           ^",
        'note: ONNX node "/conv"',
        "note: look here",
        "",
    ]


def test_instruments_see_every_pass_and_the_failure() -> None:
    class Diary(Instrument):
        def __init__(self) -> None:
            self.lines: list[str] = []

        def begin(self, module: Module, passes: Any) -> None:
            self.lines.append(f"begin {len(passes)}")

        def before(self, module: Module, where: Where, ctx: PassContext) -> None:
            self.lines.append(f"before {where}")

        def after(self, module: Module, where: Where, run: PassRun, ctx: PassContext) -> None:
            self.lines.append(f"after {where}: {run.changes}")

        def failed(self, module: Module, where: Where, error: Exception) -> str | None:
            self.lines.append(f"failed {where}: {type(error).__name__}")
            return "my note"

        def end(self, module: Module, report: Any) -> None:
            self.lines.append(f"end {len(report.runs)}")

    known, diary = passes(), Diary()
    with pytest.raises(QdqcError, match="my note"):
        PassManager([known["swap"](), known["refuser"]()], instruments=[diary]).run(tiny())
    assert diary.lines == [
        "begin 2",
        "before 't-swap' (1 of 2)",
        "after 't-swap' (1 of 2): 1",
        "before 't-refuser' (2 of 2)",
        "failed 't-refuser' (2 of 2): QdqcError",
        "end 1",
    ]


def test_a_pattern_pass_may_be_idle() -> None:
    module = parse_module(TEXT.replace("relu(", "hard_swish("))
    report = PassManager([passes()["swap"]()]).run(module)
    assert report.changes == 0
    assert [n.op for n in module.walk()][1] == HardSwish()


def test_clones_are_equal_and_independent() -> None:
    module = tiny()
    copy = clone(module)
    assert copy == module
    assert copy.constants["w"].data is module.constants["w"].data
    PassManager([passes()["swap"]()]).run(copy)
    assert print_module(module) == TEXT
    assert copy != module
