"""How values are spelt: short, exact, and so that the reader gets the same value."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdqc.ir.data import Data
from qdqc.ir.dims import symbol
from qdqc.ir.spelling import (
    INLINE_LIMIT,
    SpellingError,
    is_inline,
    print_bare,
    print_data,
    print_entries,
    print_float,
    print_name,
    print_string,
    print_type,
    print_value,
)
from qdqc.ir.types import Elem, OptionalType, Quant, Range, SequenceType, TensorType

N = symbol("N")


@given(st.floats(allow_nan=False))
def test_a_float_reads_back_as_itself(number: float):
    for typed in (False, True):
        back = float(print_float(number, typed))
        assert back == number
        assert math.copysign(1, back) == math.copysign(1, number)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_an_untyped_float_never_reads_back_as_an_integer(number: float):
    text = print_float(number, typed=False)
    assert any(c in text for c in ".en")


@settings(max_examples=200)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_float32_prints_no_digit_too_many(number: float):
    """As many digits as numpy needs to tell it from its neighbours, not those of a double."""
    text = print_data(Data.of(np.float32(number)))[len("dense[") : -1]
    assert np.float32(text) == np.float32(number)
    assert len(Decimal(text).normalize().as_tuple().digits) <= 9


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.1"),
        (6.0, "6.0"),
        (-0.0, "-0.0"),
        (1e22, "1e+22"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (math.nan, "nan"),
        (-math.nan, "nan"),
        (True, "true"),
        (np.False_, "false"),
        (None, "none"),
        (np.int8(-3), "-3"),
        (np.float32(0.5), "0.5"),
        (2**70, str(2**70)),
        ("a\tb", '"a\\tb"'),
        ("é", '"é"'),
        ("\u200b", '"\\u200b"'),
        ((), "[]"),
        ([1, (2.0, "x")], '[1, [2.0, "x"]]'),
        ({}, "{}"),
        ({"a": {"b c": None}}, '{a = {"b c" = none}}'),
        (Data.of(np.array([1, 2], np.int8)), "i8[2] dense[1, 2]"),
        (TensorType(Elem.F32, (N, None)), "f32[N,?]"),
    ],
)
def test_values(value: Any, text: str):
    assert print_value(value) == text


@pytest.mark.parametrize("value", [object(), {1, 2}, b"raw", 1j, np.zeros(2)])
def test_what_has_no_text_form_is_refused(value: Any):
    with pytest.raises(SpellingError, match=f"type {type(value).__name__} has no text form"):
        print_value([value])


@pytest.mark.parametrize("name", ["x", "a.b/c:0", "$", "-", "0", "é", "a-b", "/layer1/Conv"])
def test_plain_names_stand_bare(name: str):
    assert print_name(name) == f"%{name}"


@pytest.mark.parametrize("name", ["a b", "", "a:", "x\n", 'q"q', "a,b", "(", "%x", "a\x00"])
def test_odd_names_are_quoted(name: str):
    assert print_bare(name) == print_string(name)
    assert json.loads(print_string(name)) == name
    assert print_string(name).isprintable()


@given(st.text())
def test_any_text_is_one_printable_line(text: str):
    printed = print_string(text)
    assert json.loads(printed) == text
    assert printed.isprintable()


def test_keys_that_are_no_words_are_quoted():
    assert print_entries([("a1", "1"), ("1a", "2"), ("a-b", "3"), ("", "4")]) == (
        '{a1 = 1, "1a" = 2, "a-b" = 3, "" = 4}'
    )


@pytest.mark.parametrize(
    ("type", "text"),
    [
        (TensorType(Elem.F32), "f32[*]"),
        (TensorType(Elem.BF16, ()), "bf16[]"),
        (TensorType(Elem.STRING, (0, None, N)), "string[0,?,N]"),
        (TensorType(Elem.F32, ((N + 1) // 2, 2 * N)), "f32[(N+1)//2,2*N]"),
        (TensorType(Elem.F32, (1,), range=Range(-1.5, 2, 2)), "f32[1] range(-1.5, 2, 2)"),
        (TensorType(Elem.U8, (1,), Quant.make(0.1, 3)), "u8[1] q(scale = 0.1, zero_point = 3)"),
        (TensorType(Elem.I8, (1,), Quant.make(0.1)), "i8[1] q(scale = 0.1)"),
        (
            TensorType(Elem.I8, (2,), Quant.make([1, 0.5], axis=0)),
            "i8[2] q(axis = 0, scale = [1, 0.5])",
        ),
        (
            TensorType(Elem.I4, (1, 4), Quant.make([[1, 2]], axis=1, block=2)),
            "i4[1,4] q(axis = 1, block = 2, scale = f32[1,2] dense[1, 2])",
        ),
        (SequenceType(OptionalType(TensorType(Elem.I64, (2,)))), "seq<opt<i64[2]>>"),
    ],
)
def test_types(type: Any, text: str):
    assert print_type(type) == text


def test_contents_stand_in_the_text_up_to_a_limit():
    few = Data.of(np.zeros(INLINE_LIMIT, np.float32))
    many = Data.of(np.zeros(INLINE_LIMIT + 1, np.float32))
    assert print_data(few).count("0") == INLINE_LIMIT
    assert print_data(few, elide=True) == print_data(few)
    assert print_data(many) == f'resource("sha256:{many.digest}")'
    assert print_data(many, elide=True) == f'elided("sha256:{many.digest[:8]}")'


def test_strings_always_stand_in_the_text():
    many = Data.of(np.array(["a"] * 40))
    assert print_data(many).count('"a"') == 40
    assert print_data(many, elide=True) == print_data(many)


def test_elided_contents_keep_the_digest_that_they_came_with():
    assert print_data(Data.elided(Elem.F32, (2,), "ab12")) == 'elided("sha256:ab12")'


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.array([True, False]), "dense[true, false]"),
        (np.array([1 + 2j, -0.5], np.complex64), "dense[[1, 2], [-0.5, 0]]"),
        (np.array([2**63], np.uint64), f"dense[{2**63}]"),
        (np.array([0.1, -0.0, 3], np.float64), "dense[0.1, -0.0, 3]"),
        (np.array([0.1], np.float16), "dense[0.099975586]"),
        (np.array([np.nan, np.inf], np.float32), "dense[nan, inf]"),
    ],
)
def test_elements(array: Any, text: str):
    assert print_data(Data.of(array)) == text


def test_scales_in_a_list_are_inline_up_to_the_limit():
    assert is_inline(np.float32(1))
    assert is_inline(np.ones(INLINE_LIMIT))
    assert not is_inline(np.ones(INLINE_LIMIT + 1))
    assert not is_inline(np.ones((1, 1)))
