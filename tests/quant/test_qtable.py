"""qtables: which line wins, what a line may match, and what is told about a wrong one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdqc.diagnostics import QdqcError
from qdqc.ir.graph import Module
from qdqc.pipeline.manager import run
from qdqc.quant.qtable import Qtable, load_qtable, mode_named, parse_qtable, plan, print_qtable
from qdqc.text.parser import parse_module

NAMES_OF_ANY_KIND = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1)

MODEL = """
module @m {
  graph (%x : f32[2,4]) -> (%out) {
    %layer1/a = relu(%x) : f32[2,4]
    %layer1/b = tanh(%layer1/a) : f32[2,4]
    %layer2/a = relu(%layer1/b) : f32[2,4]
    %"layer2/b b" = softmax(%layer2/a) : f32[2,4]
    %"c[0]" = relu(%"layer2/b b") : f32[2,4]
    %c0, %c1 = split(%"c[0]") {axis = 1, num_outputs = 2} : f32[2,2], f32[2,2]
    %out = add(%c0, %c1) : f32[2,2]
  }
}
"""
NAMES = ["layer1/a", "layer1/b", "layer2/a", "layer2/b b", "c[0]", "c0", "out"]


@pytest.fixture(scope="module")
def module() -> Module:
    return parse_module(MODEL)


def floats(module: Module, text: str) -> list[str]:
    """The nodes that a table makes float, where INT8 is the default."""
    modes = plan(module.graph, "INT8", parse_qtable(text, "t.qtable"))
    assert list(modes) == NAMES
    return [n for n, mode in modes.items() if mode == "F32"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", []),
        ("# all of it INT8\n\n  \n", []),
        ("layer1/a F32", ["layer1/a"]),
        ("  layer1/a    f32  ", ["layer1/a"]),
        ("layer1/a\tF32", ["layer1/a"]),
        ("layer1/a F32  # it loses most", ["layer1/a"]),
        ('"layer2/b b" F32', ["layer2/b b"]),
        ('"layer2/b b"\tF32 # why', ["layer2/b b"]),
        ("layer1/* F32", ["layer1/a", "layer1/b"]),
        ("layer?/a F32", ["layer1/a", "layer2/a"]),
        ("type:relu F32", ["layer1/a", "layer2/a", "c[0]"]),
        ("type:re* F32", ["layer1/a", "layer2/a", "c[0]"]),
        ("re:layer[12]/b.* F32", ["layer1/b", "layer2/b b"]),
        ("re:layer1 F32?", []),
        ("layer1/a INT8\nlayer1/* F32", ["layer1/b"]),  # an exact name over a pattern
        ("type:relu F32\nlayer1/* INT8", ["layer2/a", "c[0]"]),  # the later pattern wins
        ("layer1/a F32\nlayer1/a INT8", []),
        ("layer1/a INT8\nlayer1/a F32", ["layer1/a"]),
        ("layer1/a F32\nlayer1/a INT8\nlayer1/a F32", ["layer1/a"]),
        ("nothing F32?\nlayer1/a F32 ?", ["layer1/a"]),
        ("c1 F32", ["c0"]),  # any result names its node
        ("c[0] F32", ["c[0]"]),  # a name is a name, though it looks like a glob
        ("c[0] F32\ntype:relu INT8", ["c[0]"]),
    ],
)
def test_what_a_table_means(module: Module, text: str, wanted: list[str]) -> None:
    assert floats(module, text) == wanted


@pytest.mark.parametrize("text", ["F32", "f32", "FLOAT", "fp32", "Fp32"])
def test_names_of_float(text: str) -> None:
    assert mode_named(text) == "F32"


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        (
            "\nlayer1/aa F32",
            "t.qtable:2:1",
            "'layer1/aa' matches no node; did you mean 'layer1/a'?",
        ),
        ("type:relo F32", "t.qtable:1:1", "'type:relo' matches no node; did you mean 'type:relu'?"),
        ("zzz* F32", "t.qtable:1:1", "'zzz*' matches no node"),
        ("layer1/a F23", "t.qtable:1:1", "unknown mode 'F23'; did you mean 'F32'?"),
        ("  layer1/a", "t.qtable:1:3", "a qtable line is a name and a mode"),
        ('"layer1 F32', "t.qtable:1:1", "is not a JSON string"),
        ("re:( F32", "t.qtable:1:1", "'re:(' is no regular expression"),
    ],
)
def test_what_is_wrong_is_located(module: Module, text: str, place: str, message: str) -> None:
    with pytest.raises(QdqcError) as caught:
        plan(module.graph, "INT8", parse_qtable(text, "t.qtable"))
    assert str(caught.value).startswith(place)
    assert message in str(caught.value)


def test_a_table_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(QdqcError, match="can't read the qtable: No such file"):
        load_qtable(tmp_path / "no.qtable")
    binary = tmp_path / "binary.qtable"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(QdqcError, match="it is not text"):
        load_qtable(binary)


def test_the_pass_sets_modes(module: Module, tmp_path: Path) -> None:
    table = tmp_path / "a.qtable"
    table.write_text("type:relu F32\n")
    done: Any = run(module, f'assign-precision{{qtable="{table}"}}')
    assert [n.mode for n in done.graph.nodes()] == ["F32", "INT8", "F32", "INT8", "F32"] + [
        "INT8"
    ] * 2
    assert {n.mode for n in run(module, 'assign-precision{mode="fp32"}').graph.nodes()} == {"F32"}
    with pytest.raises(QdqcError, match="unknown mode 'INT9'; did you mean 'INT8'"):
        run(module, 'assign-precision{mode="INT9"}')


@given(st.dictionaries(NAMES_OF_ANY_KIND, st.sampled_from(["F32", "W8", "DYN8"]), max_size=5))
def test_names_of_any_kind_come_back(modes: dict[str, str]) -> None:
    qtable = parse_qtable(print_qtable(modes, {"model": "a\nb"}), "q")
    assert qtable == Qtable.of(modes)


@pytest.mark.parametrize("name", ["a b", "#a", '"a"', "a #b", "re:x", "type:conv", "a?"])
def test_odd_names_stand_on_one_line(name: str) -> None:
    (line,) = parse_qtable(print_qtable({name: "F32"}), "q").lines
    assert line.pattern == name


def test_modes_in_memory_are_those_of_a_file(module: Module) -> None:
    text = 'layer1/* fp32\n"layer2/b b" W8\n'
    held = Qtable.of({"layer1/*": "F32", "layer2/b b": "w8"})
    assert held == parse_qtable(text, "t.qtable")
    assert held.digest == parse_qtable(f"# note\n{text}", "other").digest
    assert held.digest != Qtable.of({"layer1/*": "F32"}).digest
    with pytest.raises(QdqcError, match="unknown mode 'F23'; did you mean 'F32'"):
        Qtable.of({"layer1/a": "F23"})
