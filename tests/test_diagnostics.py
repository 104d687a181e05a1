"""The text of diagnostics, and the registries' suggestions."""

from __future__ import annotations

import pytest

from compiler.diagnostics import Diagnostic, QdqcError, Severity, nearest, suggestion
from compiler.ir.loc import Loc, Position
from compiler.registry import Registry


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
    with pytest.raises(KeyError, match="unknown thing 'alhpa'; did you mean 'alpha'"):
        registry["alhpa"]


def test_scratch_entries_go_away_even_after_an_error() -> None:
    registry: Registry[type] = Registry("thing")
    registry.add("a", named("A", "m"))
    with registry.scratch():
        registry.add("b", named("B", "m"))
        assert registry.names() == ["a", "b"]
    assert registry.names() == ["a"]
    with pytest.raises(KeyError), registry.scratch():
        registry.add("b", registry["c"])
    assert registry.names() == ["a"]
