"""What instruments and the manager do when something goes wrong, and what they record."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from qdqc.diagnostics import Diagnostic, QdqcError
from qdqc.ir.core import Node, Value
from qdqc.ir.graph import Graph, Module
from qdqc.ir.loc import Loc, Position
from qdqc.ops import Relu, Sigmoid, Tanh
from qdqc.pipeline.explain import Explain
from qdqc.pipeline.instrument import Instrument, PassRun, Report, Where
from qdqc.pipeline.manager import PassError, PassManager
from qdqc.pipeline.pass_ import PASSES, Pass, PassContext, describe
from qdqc.pipeline.pass_timing import PassStatistics, TimePasses
from qdqc.pipeline.printing import DumpIR, PrintIR
from qdqc.pipeline.reproducer import CrashReproducer
from qdqc.rewrite.pattern import PatternPass, Rewriter, rewrites
from qdqc.text.parser import parse_module
from qdqc.text.printer import print_module

TEXT = """\
module @tiny {
  graph (%x : f32[2]) -> (%e) {
    %a = relu(%x) : f32[2] loc("/a")
    %b = relu(%a) : f32[2] loc("/b")
    %c = tanh(%b) : f32[2] loc("/c")
    %d = tanh(%c) : f32[2] loc("/d")
    %e = relu(%d) : f32[2] loc("/e")
  }
}
"""


@pytest.fixture(autouse=True)
def known() -> Generator[dict[str, type[Any]]]:
    with PASSES.scratch():

        class Picky(PatternPass):
            """Decline with one reason or another."""

            name = "t-picky"

            @rewrites(Relu, Tanh)
            def early(self, node: Node[Any], rw: Rewriter) -> Value | None:
                if isinstance(node.op, Tanh):
                    return rw.no("is a tanh")
                if node.operands[0] is not None and node.operands[0].is_input:
                    return rw.no("reads an input", node.operands[0])
                return rw.no("is the last guard")

            @rewrites(Tanh)
            def silent(self, node: Node[Any], rw: Rewriter) -> Value | None:
                return None

        class Raise(Pass):
            """Raise what it is told to."""

            name = "t-raise"
            what: str = "input"

            def run(self, graph: Graph, ctx: PassContext) -> int:
                node = next(graph.nodes())
                ctx.warn("before the end", node, "a note")
                graph.module.header["touched"] = True
                if self.what == "file":
                    raise QdqcError("row 3 is malformed", file="m.cali_table")
                if self.what == "place":
                    raise QdqcError("no such pass", loc=Loc(position=Position("m.qtable", 3, 1)))
                if self.what == "node":
                    raise ctx.error("is too wide", node, "make it narrow")
                if self.what == "crash":
                    raise ZeroDivisionError("by zero")
                if self.what == "stop":
                    raise KeyboardInterrupt
                raise QdqcError("can't be used")

        class Many(Pass):
            """Break every node."""

            name = "t-many"

            def run(self, graph: Graph, ctx: PassContext) -> int:
                for node in graph.nodes():
                    node.loc = Loc()
                    node.set_operands([])
                return 1

        class Swap(PatternPass):
            """Turn relu into sigmoid."""

            name = "t-swap"

            @rewrites(Relu)
            def swap(self, node: Node[Any], rw: Rewriter) -> Value | None:
                return rw.op(Sigmoid(), node.operands[0])

        yield {c.name[2:]: c for c in (Picky, Raise, Many, Swap)}


def run(passes: list[Pass], *instruments: Instrument, **kwargs: Any) -> tuple[Module, Report]:
    module = parse_module(TEXT)
    return module, PassManager(passes, instruments=instruments, **kwargs).run(module)


def failure(pass_: Pass, *instruments: Instrument) -> QdqcError:
    with pytest.raises(QdqcError) as caught:
        run([pass_], *instruments, warn=lambda _: None)
    return caught.value


def test_an_error_of_the_module_names_the_pass(known: dict[str, type[Any]]) -> None:
    notes = failure(known["raise"]()).diagnostic.notes
    how = "--crash-reproducer crash.qir writes what reproduces it"
    assert notes == (f"found after pass 't-raise' (1 of 1); {how}",)
    notes = failure(known["raise"](what="node")).diagnostic.notes
    assert notes == ("make it narrow", f"found after pass 't-raise' (1 of 1); {how}")


@pytest.mark.parametrize("what", ["file", "place"])
def test_an_error_of_a_file_that_a_pass_reads_is_told_alone(
    known: dict[str, type[Any]], what: str
) -> None:
    assert failure(known["raise"](what=what)).diagnostic.notes == ()


def test_who_wants_a_reproducer_gets_it_in_any_case(
    known: dict[str, type[Any]], tmp_path: Path
) -> None:
    path = tmp_path / "crash.qir"
    (note,) = failure(known["raise"](what="file"), CrashReproducer(path)).diagnostic.notes
    command = f"qir_opt {path} --passes 't-raise{{what=\"file\"}}'"
    assert note == f"found after pass 't-raise' (1 of 1); reproduce: {command}"
    lines = path.read_text().splitlines()
    assert lines[:3] == [
        "// The module before pass 't-raise' (1 of 1), which failed:",
        "// row 3 is malformed",
        f"// reproduce: {command}",
    ]
    assert print_module(parse_module("\n".join(lines))) == TEXT


def test_a_reproducer_tells_of_a_crash_and_of_its_plugins(
    known: dict[str, type[Any]], tmp_path: Path
) -> None:
    path = tmp_path / "a b.qir"
    with pytest.raises(PassError) as caught:
        run(
            [known["swap"](), known["raise"](what="crash")],
            CrashReproducer(path, plugins=["my pass.py"]),
            warn=lambda _: None,
        )
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    message = str(caught.value)
    assert message.startswith("pass 't-raise' (2 of 2) failed with ZeroDivisionError: by zero\n")
    assert f"qir_opt '{path}' --plugin 'my pass.py' --passes 't-raise" in message
    assert "// ZeroDivisionError('by zero')" in path.read_text()
    assert "sigmoid" in path.read_text(), "the module as it was before the pass that failed"
    assert "touched" not in path.read_text()


def test_warnings_are_told_even_when_the_pass_fails(known: dict[str, type[Any]]) -> None:
    told: list[Diagnostic] = []
    with pytest.raises(QdqcError):
        run([known["raise"]()], warn=told.append)
    assert [d.render().split("\n") for d in told] == [
        [
            "<text>:3:10: warning: 'relu': before the end",
            '      %a = relu(%x) : f32[2] loc("/a")',
            "           ^",
            'note: ONNX node "/a"',
            "note: a note",
        ]
    ]


def test_an_interruption_is_no_failure_of_the_pass(
    known: dict[str, type[Any]], tmp_path: Path
) -> None:
    path = tmp_path / "crash.qir"
    with pytest.raises(KeyboardInterrupt):
        run([known["raise"](what="stop")], CrashReproducer(path), warn=lambda _: None)
    assert not path.exists()


def test_further_findings_of_the_verifier_are_told_in_short(known: dict[str, type[Any]]) -> None:
    error = failure(known["many"]())
    notes = error.diagnostic.notes
    assert error.diagnostic.message == "lacks its operand 'x'"
    assert [n for n in notes if n.startswith("also: ")] == [
        "also: error: 'relu': lacks its operand 'x'",
        "also: error: 'tanh': lacks its operand 'x'",
        "also: error: 'tanh': lacks its operand 'x'",
        "also: error: 'relu': lacks its operand 'x'",
    ]
    assert not any(n.startswith("and ") for n in notes)


def test_findings_without_end_are_counted(known: dict[str, type[Any]]) -> None:
    lines = [f"%r{i} = relu(%x) : f32[2]" for i in range(20)]
    module = parse_module(TEXT.replace("    %a", "\n".join(lines) + "\n    %a"))
    with pytest.raises(QdqcError) as caught:
        PassManager([known["many"]()]).run(module)
    assert "and 20 more" in caught.value.diagnostic.notes


class Log(Instrument):
    """Writes down which hooks were called."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def begin(self, module: Module, passes: Any) -> None:
        self.calls.append(f"begin {len(passes)}")

    def before(self, module: Module, where: Where, ctx: PassContext) -> None:
        self.calls.append(f"before {where}")

    def after(self, module: Module, where: Where, run: PassRun, ctx: PassContext) -> None:
        self.calls.append(f"after {where}: {run.changes}")

    def failed(self, module: Module, where: Where, error: Exception) -> str | None:
        self.calls.append(f"failed {where}")
        return "told by the log"

    def end(self, module: Module, report: Report) -> None:
        self.calls.append(f"end {[r.name for r in report.runs]}")


def test_hooks_come_in_order(known: dict[str, type[Any]]) -> None:
    log = Log()
    _, report = run([known["swap"](), known["picky"]()], log)
    assert log.calls == [
        "begin 2",
        "before 't-swap' (1 of 2)",
        "after 't-swap' (1 of 2): 3",
        "before 't-picky' (2 of 2)",
        "after 't-picky' (2 of 2): 0",
        "end ['t-swap', 't-picky']",
    ]
    assert report.changes == 3
    assert report.seconds >= sum(r.seconds for r in report.runs) > 0


def test_hooks_come_in_order_after_a_failure(known: dict[str, type[Any]]) -> None:
    log = Log()
    error = failure(known["raise"](), log)
    assert log.calls[2:] == ["failed 't-raise' (1 of 1)", "end []"]
    assert error.diagnostic.notes == ("found after pass 't-raise' (1 of 1); told by the log",)


def test_tables_are_written_of_what_ran_before_a_failure(
    known: dict[str, type[Any]], tmp_path: Path
) -> None:
    lines: list[str] = []
    instruments = [TimePasses(lines.append), PassStatistics(lines.append), DumpIR(tmp_path)]
    with pytest.raises(QdqcError):
        run([known["swap"](), known["raise"]()], *instruments, warn=lambda _: None)
    times, statistics = lines
    assert "t-swap (pass 1)" in times
    assert "t-raise" not in times
    assert statistics.splitlines() == [
        "changes  pass",
        "      3  t-swap (pass 1)",
        "          3  swap",
    ]
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["000_input.qir", "001_t-swap.qir", "002_t-raise.failed.qir"]
    assert "touched" in (tmp_path / names[2]).read_text()


def test_times_without_a_verifier_have_no_row_for_it(known: dict[str, type[Any]]) -> None:
    lines: list[str] = []
    run([known["swap"]()], TimePasses(lines.append), verify_each=False)
    assert [line.split("  ")[-1] for line in lines[0].splitlines()] == [
        "pass",
        "t-swap (pass 1)",
        "(total)",
    ]


def test_times_of_nothing(known: dict[str, type[Any]]) -> None:
    lines: list[str] = []
    run([], TimePasses(lines.append), PassStatistics(lines.append))
    assert lines == ["seconds   percent  pass\n 0.0000      0.0%  (total)\n", "changes  pass\n"]


def test_the_nearest_misses_stand_first(known: dict[str, type[Any]]) -> None:
    lines: list[str] = []
    run([known["picky"]()], Explain(lines.append, ["t-picky"]))
    assert "".join(lines).splitlines() == [
        "// ----- why 't-picky' (1 of 1) left nodes alone: 0 changes -----",
        "rule 'early'",
        "    2 x is the last guard: relu %b, relu %e",
        "    1 x reads an input: relu %a at %x",
        "    2 x is a tanh: tanh %c, tanh %d",
    ]


def test_a_pass_that_says_nothing_is_explained_so(known: dict[str, type[Any]]) -> None:
    lines: list[str] = []
    run([known["swap"]()], Explain(lines.append, ["t-swap"]))
    assert lines[0].endswith("3 changes -----\nno rule declined a node with a reason\n")


def test_only_passes_that_were_asked_for_are_explained(known: dict[str, type[Any]]) -> None:
    lines: list[str] = []
    run([known["picky"](), known["swap"]()], Explain(lines.append, ["t-swap"]))
    assert len(lines) == 1
    assert "t-picky" not in lines[0]


def test_printing_what_a_failing_pass_changed(known: dict[str, type[Any]]) -> None:
    lines: list[str] = []
    failure(known["raise"](), PrintIR(lines.append, diff=True))
    text = "".join(lines)
    assert text.startswith("// ----- IR changes after 't-raise' (1 of 1), which failed -----\n")
    assert "-module @tiny {" in text
    assert "+module @tiny {touched = true} {" in text
    assert "relu(%b)" not in text, "two lines around each change, no more"


def test_a_pass_without_run_says_so() -> None:
    class Empty(Pass):
        """Do nothing yet."""

        name = "t-empty"

    with pytest.raises(NotImplementedError, match=r"Empty\.run"):
        Empty().run(Module().graph, PassContext())
    assert describe(Empty) == "Do nothing yet."


def test_a_pass_without_docstring_has_no_description() -> None:
    class Mute(Pass):
        name = "t-mute"

        def run(self, graph: Graph, ctx: PassContext) -> int:
            return 0

    Mute.__doc__ = None
    assert describe(Mute) == ""
