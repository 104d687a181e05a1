"""The text of diagnostics, and the registries' suggestions."""

from __future__ import annotations

import pytest

from qdqc.diagnostics import Diagnostic, QdqcError, Severity, nearest, suggestion
from qdqc.ir.loc import Loc, Position
from qdqc.registry import Registry


def test_the_whole_form() -> None:
    position = Position("block.qir", 10, 10, "    %c = conv(%x, %w)", 4)
    error = QdqcError(
        "weight takes 3 input channels, but x has 4",
        node="conv",
        loc=Loc(("/layer1/Conv", "/layer1/Relu"), position),
        notes=["%x is an input"],
    )
    assert str(error).split("\n") == [
        "block.qir:10:10: error: 'conv': weight takes 3 input channels, but x has 4",
        "      %c = conv(%x, %w)",
        "           ^^^^",
        'note: ONNX node "/layer1/Conv", "/layer1/Relu"',
        "note: %x is an input",
    ]


def test_without_a_place_the_file_stands_in_front() -> None:
    assert str(QdqcError("it is empty", file="a.onnx")) == "a.onnx: error: it is empty"
    assert str(QdqcError("no data")) == "error: no data"
    assert Diagnostic(Severity.WARNING, "odd").render() == "warning: odd"


def test_a_blank_line_is_not_shown() -> None:
    error = QdqcError("unexpected end", loc=Loc(position=Position("f", 3, 1, "   ")))
    assert str(error) == "f:3:1: error: unexpected end"


def test_notes_are_added_behind() -> None:
    first = QdqcError("m", node="n", file="f", notes=["a"])
    second = first.with_notes("b", "c")
    assert second.diagnostic.notes == ("a", "b", "c")
    assert first.diagnostic.notes == ("a",)
    assert str(second).startswith("f: error: 'n': m")


def test_nearest() -> None:
    assert nearest("matmull", ["matmul", "conv"]) == "matmul"
    assert nearest("xyz", ["matmul", "conv"]) is None
    assert suggestion("matmull", {"matmul": 1}) == "; did you mean 'matmul'?"
    assert suggestion("q", []) == ""


def named(name: str, module: str) -> type:
    return type(name, (), {"__module__": module})


def test_a_registry_replaces_the_same_class_and_refuses_another() -> None:
    registry: Registry[type] = Registry("thing")
    first, again = named("A", "m"), named("A", "m")
    registry.add("a", first)
    registry.add("a", again)
    assert registry["a"] is again
    with pytest.raises(ValueError, match=r"thing 'a' is defined twice: by m\.A and by other\.A"):
        registry.add("a", named("A", "other"))
    assert registry["a"] is again


def test_a_registry_suggests_and_sorts() -> None:
    registry: Registry[type] = Registry("thing")
    registry.add("beta", named("B", "m"))
    registry.add("alpha", named("A", "m"))
    assert registry.names() == ["alpha", "beta"]
    assert [cls.__name__ for cls in registry] == ["A", "B"]
    assert registry.get("gamma") is None
    with pytest.raises(QdqcError, match="unknown thing 'alhpa'; did you mean 'alpha'"):
        registry["alhpa"]


def test_scratch_entries_go_away_even_after_an_error() -> None:
    registry: Registry[type] = Registry("thing")
    registry.add("a", named("A", "m"))
    with registry.scratch():
        registry.add("b", named("B", "m"))
        assert registry.names() == ["a", "b"]
    assert registry.names() == ["a"]
    with pytest.raises(QdqcError), registry.scratch():
        registry.add("b", registry["c"])
    assert registry.names() == ["a"]


def carets(text: str, column: int, width: int = 1) -> str:
    """What of the source line stands above the carets."""
    position = Position("m.qir", 1, column, text, width)
    _, line, caret = (
        Diagnostic(Severity.ERROR, "m", loc=Loc(position=position)).render().split("\n")
    )
    begin = caret.index("^")
    assert caret.strip() == "^" * len(caret.strip())
    return line[begin : begin + len(caret.strip())]


def test_carets_stand_under_what_they_mean() -> None:
    assert carets("    %y = relu(%x)", 10, 4) == "relu"
    assert carets("\t\t%y", 3, 2) == "%y"
    assert carets("%y", 1, 0) == "%"


@pytest.mark.parametrize("place", [1, 60, 500, 990])
def test_carets_stand_under_what_they_mean_in_long_lines(place: int) -> None:
    text = "-" * (place - 1) + "wrong" + "-" * (1000 - place)
    assert carets("      " + text, place + 6, 5) == "wrong"


def test_a_span_that_leaves_the_shown_part_is_cut() -> None:
    text = "a" * 1000
    assert set(carets(text, 100, 900)) == {"a", " ", "."}
    rendered = Diagnostic(Severity.ERROR, "m", loc=Loc(position=Position("f", 1, 100, text, 900)))
    assert all(len(line) < 230 for line in rendered.render().split("\n"))


def test_a_place_is_worth_more_than_a_file() -> None:
    loc = Loc(position=Position("m.qir", 2, 3, "text"))
    assert str(QdqcError("m", loc=loc, file="other")).startswith("m.qir:2:3: error: m")
    assert str(QdqcError("m", loc=Loc(("/a",)), file="other")).split("\n") == [
        "other: error: m",
        'note: ONNX node "/a"',
    ]


def test_an_error_is_its_diagnostic() -> None:
    warning = Diagnostic(Severity.WARNING, "m", "conv", Loc(("/a",)), "f", ("n",))
    error = QdqcError.of(warning)
    assert error.diagnostic == Diagnostic(Severity.ERROR, "m", "conv", Loc(("/a",)), "f", ("n",))
    assert error.args == ("m",)
    assert error.with_notes().diagnostic == error.diagnostic
    assert error.with_notes("x").with_notes("y").diagnostic.notes == ("n", "x", "y")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("realu", "relu"),
        ("RELU", None),
        ("quantise", "quantize"),
        ("fuse_activation", "fuse-activation"),
        ("", None),
    ],
)
def test_suggestions(name: str, expected: str | None) -> None:
    assert nearest(name, ["relu", "quantize", "fuse-activation", "conv"]) == expected
