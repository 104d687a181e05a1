"""The codec of attributes and options."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdqc.ir.fields import FieldError, Flat, decode, encode


@dataclass(frozen=True)
class Options:
    count: int = 0
    factor: float = 1.0
    pads: tuple[int, ...] = ()
    clamp: tuple[float, float] | None = None
    kind: Literal["a", "b"] = "a"
    flag: bool = False
    either: int | float = 0
    text: str = ""
    any: Any = None


@dataclass(frozen=True)
class Needs:
    axis: int


EMPTY = Flat()


@dataclass(frozen=True)
class Open:
    type: str
    rest: Flat = EMPTY


def test_defaults_are_not_printed():
    assert encode(Options()) == []
    assert encode(Options(pads=(), factor=1)) == []


def test_fields_print_in_their_order():
    options = Options(text='a"b', pads=(1, 2), clamp=(0.0, math.inf), count=3)
    assert encode(options) == [
        ("count", "3"),
        ("pads", "[1, 2]"),
        ("clamp", "[0, inf]"),
        ("text", '"a\\"b"'),
    ]


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("factor", 6.0, "6"),
        ("factor", -0.0, "-0.0"),
        ("either", 6.0, "6.0"),
        ("either", 6, "6"),
        ("any", 6.0, "6.0"),
        ("any", (1, 1.0, "x", None, True), '[1, 1.0, "x", none, true]'),
        ("any", {"b": 1, "a c": ()}, '{b = 1, "a c" = []}'),
        ("factor", math.nan, "nan"),
    ],
)
def test_spelling(name: str, value: Any, text: str):
    assert encode(Options(**{name: value})) == [(name, text)]


@given(st.floats())
def test_minus_zero_and_nan_are_told_from_their_neighbours(number: float):
    printed = encode(Options(factor=number))
    assert bool(printed) == (repr(number) != "1.0")


def test_decoding_fits_numbers_to_the_annotation():
    found = decode(Options, {"factor": 2, "clamp": (0, 6), "pads": [1]}, "it")
    assert found == Options(factor=2.0, clamp=(0.0, 6.0), pads=(1,))
    assert type(found.factor) is float
    assert found.clamp is not None
    assert type(found.clamp[0]) is float


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cuont": 1}, "it has no 'cuont'; did you mean 'count'?"),
        ({"count": 1.5}, "'count' of it is an integer, not 1.5"),
        ({"count": True}, "'count' of it is an integer, not true"),
        ({"flag": 1}, "'flag' of it is true or false, not 1"),
        ({"kind": "c"}, "'kind' of it is one of a, b, not \"c\""),
        ({"pads": 1}, "'pads' of it is a list, each an integer, not 1"),
        ({"pads": (1, "a")}, "'pads' of it is a list"),
        ({"clamp": (1, 2, 3)}, "'clamp' of it is a list, each a number"),
        ({"text": None}, "'text' of it is a text, not none"),
    ],
)
def test_misfits_are_named(values: dict[str, Any], message: str):
    with pytest.raises(FieldError) as caught:
        decode(Options, values, "it")
    assert message in str(caught.value)


def test_a_field_without_default_is_needed():
    with pytest.raises(FieldError, match="it needs 'axis'"):
        decode(Needs, {}, "it")


def test_flat_takes_every_other_name():
    found = decode(Open, {"type": "Bar", "alpha": 1.5, "attr_type": 3}, "it")
    assert found == Open("Bar", Flat([("alpha", 1.5), ("type", 3)]))
    assert encode(found) == [("type", '"Bar"'), ("alpha", "1.5"), ("attr_type", "3")]


@given(st.dictionaries(st.from_regex(r"(attr_)*(type|rest|x)", fullmatch=True), st.integers()))
def test_names_of_flat_pairs_come_back(pairs: dict[str, int]):
    held = Open("t", Flat(pairs.items()))
    back = decode(Open, dict(encode(held)), "it")
    assert dict(back.rest) == {name: str(value) for name, value in pairs.items()}


plain_options = st.builds(
    Options,
    count=st.integers(),
    factor=st.floats(),
    pads=st.lists(st.integers(), max_size=3).map(tuple),
    clamp=st.none() | st.tuples(st.floats(), st.floats()),
    kind=st.sampled_from(["a", "b"]),
    flag=st.booleans(),
    either=st.integers() | st.floats(),
    text=st.text(max_size=5),
)


@given(plain_options)
def test_decoding_the_fields_gives_the_same_text(options: Options):
    """Values, not texts, go in; what prints is the same, NaN and minus zero included."""
    values = {f.name: getattr(options, f.name) for f in fields(Options)}
    assert encode(decode(Options, values, "it")) == encode(options)


@given(plain_options)
def test_only_fields_off_their_default_are_printed(options: Options):
    printed = [name for name, _ in encode(options)]
    names = [f.name for f in fields(Options)]
    assert printed == [n for n in names if n in printed], "in the order of the fields"
    for name in set(names) - set(printed):
        assert getattr(options, name) == getattr(Options(), name)


@pytest.mark.parametrize(
    ("annotation", "value", "message"),
    [
        ("count", "3", 'is an integer, not "3"'),
        ("factor", True, "is a number, not true"),
        ("clamp", (1,), "is a list, each a number, not [1]"),
        ("either", "x", 'is an integer or a number, not "x"'),
        ("pads", {"a": 1}, "is a list, each an integer, not {a = 1}"),
    ],
)
def test_misfits_show_the_value_as_it_is_spelt(annotation: str, value: Any, message: str):
    with pytest.raises(FieldError) as caught:
        decode(Options, {annotation: value}, "pass 'x'")
    assert str(caught.value) == f"'{annotation}' of pass 'x' {message}"


def test_an_unknown_field_lists_the_known_ones():
    with pytest.raises(FieldError, match=r"it has no 'zzz' \(it has: axis\)"):
        decode(Needs, {"axis": 1, "zzz": 2}, "it")


def test_flat_values_by_name():
    flat = Flat([("alpha", 1.5), ("beta", None)])
    assert flat.named("alpha") == 1.5
    assert flat.named("beta", 3) is None
    assert flat.named("gamma") is None
    assert flat.named("gamma", 3) == 3
