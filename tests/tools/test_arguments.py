"""Forms of arguments: what they take, and what they say of anything else."""

from __future__ import annotations

import argparse
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdqc.tools.arguments import (
    floats,
    indices,
    memory,
    names,
    pair,
    shapes,
    tolerance,
)

Wrong = argparse.ArgumentTypeError


@given(st.lists(st.floats(allow_nan=False), min_size=1))
def test_floats_are_read_as_python_writes_them(numbers: list[float]) -> None:
    assert floats(",".join(map(repr, numbers))) == tuple(numbers)


@given(st.lists(st.lists(st.integers(0, 2**40), max_size=5).filter(bool), min_size=1))
def test_shapes_are_read_as_python_writes_them(wanted: list[list[int]]) -> None:
    assert shapes(str(wanted)) == wanted
    assert shapes(str(wanted[0])) == [wanted[0]]


@pytest.mark.parametrize(
    "text", ["[[N,3,?,W_2]]", "[N, 3, ?, W_2]", "[['N',3,'?',\"W_2\"]]", "[['N',3,?,W_2]]"]
)
def test_names_in_shapes_want_no_quotes(text: str) -> None:
    assert shapes(text) == [["N", 3, "?", "W_2"]]


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    for form in (floats, indices, pair, shapes, tolerance, memory):
        with contextlib.suppress(Wrong):
            form(text)


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [
        ("1", 1),
        ("8GB", 8_000_000_000),
        ("500MiB", 500 * 2**20),
        ("1.5g", 1_500_000_000),
        ("2 KiB", 2048),
        (" 3TB ", 3_000_000_000_000),
    ],
)
def test_sizes_of_memory(text: str, bytes_: int) -> None:
    assert memory(text) == bytes_


@pytest.mark.parametrize("text", ["", "0", "-1GB", "GB", "1XB", "1e9", "inf", "nan", "0.1"])
def test_what_is_not_a_size(text: str) -> None:
    with pytest.raises(Wrong, match="not a size of memory such as 8GB or 500MiB"):
        memory(text)


@pytest.mark.parametrize(
    ("form", "text", "message"),
    [
        (floats, "1,x", "not a list of numbers such as 1,2.5"),
        (floats, "", "not a list of numbers"),
        (indices, "1,2.5", "not a list of whole numbers"),
        (pair, "224", "not a height and width such as 256,256"),
        (pair, "1,2,3", "not a height and width"),
        (tolerance, "0.9", "not a pair of similarities such as 0.99,0.99"),
        (shapes, "[[1,-1]]", r"not a list of shapes such as \[\[1,3,224,224\]\]"),
        (shapes, "[]", "not a list of shapes"),
        (shapes, "[[1,'1a']]", "not a list of shapes"),
        (shapes, "[[1,2.5]]", "not a list of shapes"),
        (shapes, "[[1,[2]]]", "not a list of shapes"),
        (shapes, "__import__('os')", "not a list of shapes"),
        (shapes, "[" * 10_000, "not a list of shapes"),
    ],
)
def test_what_is_refused_says_why(form: object, text: str, message: str) -> None:
    assert callable(form)
    with pytest.raises(Wrong, match=message):
        form(text)


def test_names_may_have_blanks_around_them() -> None:
    assert names(" a, b ,,c") == ["a", "b", "c"]
    assert names("") == []
    assert pair("3, 4") == (3, 4)
