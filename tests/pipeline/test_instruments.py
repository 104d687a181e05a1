"""What the instruments write."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np
import pytest

from qdqc.diagnostics import QdqcError
from qdqc.ir.core import Node, Value
from qdqc.ir.data import Data
from qdqc.ir.graph import Graph, Module
from qdqc.ops import Relu, Sigmoid
from qdqc.pipeline.explain import Explain
from qdqc.pipeline.instrument import Instrument
from qdqc.pipeline.manager import PassManager
from qdqc.pipeline.pass_ import PASSES, Pass, PassContext
from qdqc.pipeline.pass_timing import PassStatistics, TimePasses
from qdqc.pipeline.printing import DumpIR, PrintIR
from qdqc.pipeline.reproducer import CrashReproducer
from qdqc.rewrite.pattern import PatternPass, Rewriter, rewrites
from qdqc.text.parser import parse_module
from qdqc.text.printer import print_module
from qdqc.text.qir_files import load

TEXT = """\
module @tiny {
  graph (%x : f32[2]) -> (%y, %b) {
    %a = relu(%x) : f32[2] loc("/a")
    %b = relu(%a) : f32[2] loc("/b")
    %y = tanh(%b) : f32[2] loc("/y")
  }
}
"""


@pytest.fixture(autouse=True)
def known() -> Generator[dict[str, type[Pass]]]:
    with PASSES.scratch():

        class Swap(PatternPass):
            """Turn a relu that one node reads into a sigmoid."""

            name = "t-swap"

            @rewrites(Relu)
            def swap(self, node: Node[Relu], rw: Rewriter) -> Value | None:
                x = node.operands[0]
                if x is not None and x.is_input:
                    return rw.no("reads an input", x)
                if len(node.result.uses) > 2:
                    return rw.no("too many readers")
                return rw.op(Sigmoid(), x)

        class Idle(Pass):
            """Do nothing."""

            name = "t-idle"

            def run(self, graph: Graph, ctx: PassContext) -> int:
                return 0

        class Grow(Pass):
            """Add a large constant."""

            name = "t-grow"

            def run(self, graph: Graph, ctx: PassContext) -> int:
                name = graph.module.fresh_name("big")
                graph.module.add_constant(name, Data.of(np.full((64,), len(name), np.float32)))
                ctx.statistics["constants"] += 1
                return 1

        class Crash(Pass):
            """Fail."""

            name = "t-crash"
            word: str = "x"

            def run(self, graph: Graph, ctx: PassContext) -> int:
                graph.module.header["half"] = True
                raise IndexError("no such thing")

        yield {cls.name[2:]: cls for cls in (Swap, Idle, Grow, Crash)}


class Lines:
    """Collects what an instrument writes."""

    def __init__(self) -> None:
        self.text = ""

    def __call__(self, text: str) -> None:
        self.text += text

    @property
    def heads(self) -> list[str]:
        return [line for line in self.text.split("\n") if line.startswith("// -----")]


def run(passes: Sequence[Pass], *instruments: Instrument, text: str = TEXT) -> Module:
    module = parse_module(text)
    PassManager(passes, instruments=instruments).run(module)
    return module


def test_print_before_and_after_named_passes(known: dict[str, type[Pass]]) -> None:
    out = Lines()
    pipeline = [known["idle"](), known["swap"](), known["idle"]()]
    run(pipeline, PrintIR(out, before=["t-swap"], after=["t-idle"]))
    assert out.heads == [
        "// ----- IR after 't-idle' (1 of 3) -----",
        "// ----- IR before 't-swap' (2 of 3) -----",
        "// ----- IR after 't-idle' (3 of 3) -----",
    ]
    first, _, last = re.split(r"^// -----.*\n", out.text, flags=re.MULTILINE)[1:]
    assert first == TEXT
    assert "sigmoid" in last


def test_print_after_all_and_after_change(known: dict[str, type[Pass]]) -> None:
    every, changed = Lines(), Lines()
    pipeline = [known["idle"](), known["swap"](), known["idle"]()]
    run(pipeline, PrintIR(every, every=True), PrintIR(changed, on_change=True))
    assert len(every.heads) == 3
    assert changed.heads == ["// ----- IR after 't-swap' (2 of 3) -----"]


def test_a_diff_shows_only_what_changed(known: dict[str, type[Pass]]) -> None:
    out = Lines()
    run([known["idle"](), known["swap"]()], PrintIR(out, diff=True))
    assert out.heads == ["// ----- IR changes after 't-swap' (2 of 2) -----"]
    lines = out.text.split("\n")
    assert '-    %b = relu(%a) : f32[2] loc("/b")' in lines
    assert '+    %b = sigmoid(%a) : f32[2] loc("/b")' in lines
    assert not any(line.startswith(("-", "+")) and "%a = relu" in line for line in lines)


def test_a_diff_shows_changed_weights_by_digest(known: dict[str, type[Pass]]) -> None:
    out = Lines()
    run([known["grow"]()], PrintIR(out, diff=True))
    assert re.search(
        r'^\+  const %big : f32\[64\] = elided\("sha256:[0-9a-f]{8}"\)$', out.text, re.M
    )


def test_weights_are_elided_on_demand(known: dict[str, type[Pass]]) -> None:
    whole, elided = Lines(), Lines()
    run([known["grow"]()], PrintIR(whole, every=True), PrintIR(elided, every=True, elide=True))
    assert "resource(" in whole.text
    assert "elided(" in elided.text
    assert "resource(" not in elided.text


def test_a_failing_pass_is_printed_as_it_left_things(known: dict[str, type[Pass]]) -> None:
    out = Lines()
    with pytest.raises(Exception, match="no such thing"):
        run([known["crash"]()], PrintIR(out, every=True))
    assert out.heads == ["// ----- IR after 't-crash' (1 of 1), which failed -----"]
    assert "half = true" in out.text


@pytest.mark.parametrize("switch", ["before", "after", "explain"])
def test_unknown_names_are_refused(known: dict[str, type[Pass]], switch: str) -> None:
    out = Lines()
    if switch == "explain":
        found: Instrument = Explain(out, ["t-swpa"])
    elif switch == "before":
        found = PrintIR(out, before=["t-swpa"])
    else:
        found = PrintIR(out, after=["t-swpa"])
    with pytest.raises(QdqcError, match="unknown pass 't-swpa'; did you mean 't-swap'"):
        run([known["swap"]()], found)


def test_dumps_share_one_sidecar(known: dict[str, type[Pass]], tmp_path: Path) -> None:
    folder = tmp_path / "new" / "dumps"
    final = run([known["grow"](), known["swap"](), known["grow"]()], DumpIR(folder))
    assert sorted(p.name for p in folder.iterdir()) == [
        "000_input.qir",
        "001_t-grow.qir",
        "002_t-swap.qir",
        "003_t-grow.qir",
        "weights.safetensors",
    ]
    assert (folder / "000_input.qir").read_text() == TEXT
    last = load(folder / "003_t-grow.qir")
    assert last.constants["big"].data.array().tolist() == [3.0] * 64
    assert last.constants["big_1"].data.array().tolist() == [5.0] * 64
    final.header.clear()
    assert last == final
    assert list(load(folder / "001_t-grow.qir").constants) == ["big"]


def test_dumps_can_do_without_weights(known: dict[str, type[Pass]], tmp_path: Path) -> None:
    run([known["grow"]()], DumpIR(tmp_path, elide=True))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["000_input.qir", "001_t-grow.qir"]


def test_dumps_go_on_over_several_pipelines(known: dict[str, type[Pass]], tmp_path: Path) -> None:
    dump = DumpIR(tmp_path)
    run([known["idle"]()], dump)
    run([known["idle"]()], dump)
    assert sorted(p.name[:3] for p in tmp_path.iterdir()) == ["000", "001", "002", "003"]


def test_a_failure_is_dumped(known: dict[str, type[Pass]], tmp_path: Path) -> None:
    with pytest.raises(Exception, match="no such thing"):
        run([known["crash"]()], DumpIR(tmp_path))
    assert "half = true" in (tmp_path / "001_t-crash.failed.qir").read_text()


def test_a_dump_folder_that_is_a_file_is_refused(
    known: dict[str, type[Pass]], tmp_path: Path
) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(QdqcError, match="--dump-ir: can't make the folder"):
        run([known["idle"]()], DumpIR(tmp_path / "f"))


def test_times_add_up(known: dict[str, type[Pass]]) -> None:
    out = Lines()
    run([known["idle"](), known["swap"]()], TimePasses(out))
    head, *rows = [line.split(maxsplit=2) for line in out.text.strip().split("\n")]
    assert head == ["seconds", "percent", "pass"]
    assert {row[2] for row in rows} == {
        "t-idle (pass 1)",
        "t-swap (pass 2)",
        "(verifier)",
        "(total)",
    }
    seconds = [float(row[0]) for row in rows]
    assert rows[-1][1:] == ["100.0%", "(total)"]
    assert seconds[:-1] == sorted(seconds[:-1], reverse=True)
    assert sum(seconds[:-1]) == pytest.approx(seconds[-1], abs=3e-4)


def test_statistics(known: dict[str, type[Pass]]) -> None:
    out = Lines()
    run([known["swap"](), known["grow"](), known["idle"]()], PassStatistics(out))
    assert out.text.split("\n") == [
        "changes  pass",
        "      1  t-swap (pass 1)",
        "          1  swap",
        "      1  t-grow (pass 2)",
        "          1  constants",
        "      0  t-idle (pass 3)",
        "",
    ]


def test_explanations_group_reasons_and_give_examples(known: dict[str, type[Pass]]) -> None:
    text = "module @m {\n  graph (%x : f32[2]) -> (%a) {\n"
    for name in "abcde":
        text += f"    %{name} = relu(%x) : f32[2]\n"
    text += "    %f = relu(%a) : f32[2]\n"
    for name in "ghi":
        text += f"    %{name} = tanh(%f) : f32[2]\n"
    out = Lines()
    run([known["idle"](), known["swap"]()], Explain(out, ["t-swap"]), text=text + "  }\n}\n")
    assert out.text.split("\n") == [
        "// ----- why 't-swap' (2 of 2) left nodes alone: 0 changes -----",
        "rule 'swap'",
        "    1 x too many readers: relu %f",
        "    5 x reads an input: relu %a at %x, relu %b at %x, relu %c at %x, ...",
        "",
    ]


def test_explaining_a_pass_that_is_not_there_says_so(known: dict[str, type[Pass]]) -> None:
    out = Lines()
    run([known["idle"]()], Explain(out, ["t-swap"]))
    assert out.text == "// ----- pass 't-swap' did not run: it is not in the pipeline -----\n"


def test_the_reproducer_holds_what_was_before(known: dict[str, type[Pass]], tmp_path: Path) -> None:
    path = tmp_path / "crash.qir"
    note = rf"reproduce: qir_opt {path} --passes 't-crash{{word=\"a b\"}}'"
    with pytest.raises(Exception, match=re.escape(note.replace("\\", ""))):
        run([known["grow"](), known["crash"](word="a b")], CrashReproducer(path))
    text = path.read_text()
    assert text.startswith("// The module before pass 't-crash' (2 of 2), which failed:\n")
    assert "// IndexError('no such thing')\n" in text
    assert f"// reproduce: qir_opt {path} --passes 't-crash{{word=\"a b\"}}'\n" in text
    found = load(path)
    assert "half" not in found.header
    assert found.constants["big"].data.array().tolist() == [3.0] * 64


def test_no_failure_no_reproducer(known: dict[str, type[Pass]], tmp_path: Path) -> None:
    run([known["swap"]()], CrashReproducer(tmp_path / "crash.qir"))
    assert list(tmp_path.iterdir()) == []


def test_a_reproducer_that_cant_be_written_hides_nothing(
    known: dict[str, type[Pass]], tmp_path: Path
) -> None:
    with pytest.raises(Exception, match="no such thing") as caught:
        run([known["crash"]()], CrashReproducer(tmp_path / "no" / "crash.qir"))
    assert "no reproducer: can't write" in str(caught.value)


PLUGIN = """\
from qdqc.ops import Relu, Tanh
from qdqc.rewrite.pattern import PatternPass, rewrites

class ReluToTanh(PatternPass):
    "Turn relu into tanh."
    name = "relu-to-tanh"

    @rewrites(Relu)
    def to_tanh(self, node, rw):
        return rw.op(Tanh(), node.operands[0])
"""

BREAKER = """\
from qdqc.ir.types import Elem, TensorType
from qdqc.pipeline.pass_ import Pass

class Breaker(Pass):
    "Give the output a wrong type."
    name = "my-breaker"

    def run(self, graph, ctx):
        graph.outputs[0].type = TensorType(Elem.F32, (9, 9))
        return 1
"""


def qir_opt(*args: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qdqc.tools.qir_opt", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def test_a_users_pass_of_ten_lines_fires(tmp_path: Path) -> None:
    assert len([line for line in PLUGIN.split("\n") if line]) <= 10
    (tmp_path / "mine.py").write_text(PLUGIN)
    (tmp_path / "a.qir").write_text(TEXT)
    done = qir_opt("a.qir", "--plugin", "mine.py", "--passes", "relu-to-tanh", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert 'pipeline = "relu-to-tanh"' in done.stdout
    assert "relu(" not in done.stdout
    assert done.stdout.count("tanh(") == 3
    assert '%b = tanh(%a) : f32[2] loc("/b")' in done.stdout


def test_a_breaking_pass_is_named_and_its_reproducer_reproduces(tmp_path: Path) -> None:
    (tmp_path / "breaks.py").write_text(BREAKER)
    (tmp_path / "a.qir").write_text(TEXT)
    plugin = ["--plugin", "breaks.py", "--crash-reproducer", "crash.qir"]
    done = qir_opt("a.qir", *plugin, "--passes", "my-breaker", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    command = "qir_opt crash.qir --plugin breaks.py --passes 'my-breaker'"
    last = done.stderr.strip().split("\n")[-1]
    assert last == f"note: found after pass 'my-breaker' (1 of 1); reproduce: {command}"
    again = qir_opt(*shlex.split(command)[1:], cwd=tmp_path)
    assert again.returncode == 1
    shown = next(line for line in done.stderr.split("\n") if "error:" in line)
    told = next(line for line in again.stderr.split("\n") if "error:" in line)
    assert shown.partition("error:")[2] == told.partition("error:")[2]
    assert "found after pass 'my-breaker' (1 of 1)" in again.stderr
    assert print_module(load(tmp_path / "crash.qir")) == TEXT
