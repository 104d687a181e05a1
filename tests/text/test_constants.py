"""Contents of constants in the text: each element type, its extremes, and what does not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qdqc.diagnostics import QdqcError
from qdqc.ir.spelling import print_data
from qdqc.ir.types import Elem, Quant, TensorType
from qdqc.text.parser import parse_module
from qdqc.text.printer import print_module

INTEGERS = [e for e in Elem if e.is_integer]
FLOATS = [e for e in Elem if e.is_float]


def constant(type: str, contents: str) -> Any:
    text = f"module @m {{\n  const %w : {type} = {contents}\n  graph () -> () {{\n  }}\n}}\n"
    return parse_module(text, file="m.qir").constants["w"]


def refusal(type: str, contents: str) -> str:
    with pytest.raises(QdqcError) as caught:
        constant(type, contents)
    assert str(caught.value).startswith("m.qir:2:")
    return caught.value.diagnostic.message


@pytest.mark.parametrize("elem", INTEGERS)
def test_integers_reach_their_limits(elem: Elem):
    low, high = elem.limits
    text = f"dense[{low}, {high}]"
    found = constant(f"{elem.text}[2]", text)
    assert [int(v) for v in found.data.array()] == [low, high]
    assert print_data(found.data) == text


@pytest.mark.parametrize("elem", INTEGERS)
@pytest.mark.parametrize("side", [0, 1])
def test_one_further_does_not_fit(elem: Elem, side: int):
    number = elem.limits[side] + (1 if side else -1)
    message = refusal(f"{elem.text}[1]", f"dense[{number}]")
    low, high = elem.limits
    assert message == f"{number} does not fit {elem.text} ({low} to {high})"


@pytest.mark.parametrize("elem", FLOATS)
def test_powers_of_two_are_exact_in_every_float(elem: Elem):
    found = constant(f"{elem.text}[3]", "dense[0.5, 1, 2]")
    assert found.data.array().astype(np.float64).tolist() == [0.5, 1, 2]
    assert print_data(found.data) == "dense[0.5, 1, 2]"


@pytest.mark.parametrize("elem", [e for e in FLOATS if e is not Elem.F64])
def test_floats_are_rounded_once_and_stay(elem: Elem):
    """0.3 is in no binary float: what is printed reads back as the same element."""
    found = constant(f"{elem.text}[1]", "dense[0.3]")
    again = constant(f"{elem.text}[1]", print_data(found.data))
    assert np.array_equal(again.data.buffer(), found.data.buffer())


@pytest.mark.parametrize("elem", [Elem.F32, Elem.F16, Elem.BF16, Elem.F8E5M2])
def test_a_float_that_is_too_large_is_refused(elem: Elem):
    assert refusal(f"{elem.text}[2]", "dense[1, 1e300]") == f"1e+300 does not fit {elem.text}"
    held = constant(f"{elem.text}[2]", "dense[-inf, nan]").data.array().astype(np.float64)
    assert held[0] == -np.inf
    assert np.isnan(held[1])


@pytest.mark.parametrize(
    ("type", "contents", "shape"),
    [
        ("f32[]", "dense[1]", ()),
        ("f32[0]", "dense[]", (0,)),
        ("f32[2,0,3]", "dense[]", (2, 0, 3)),
        ("bool[2,2]", "dense[true, false, false, true]", (2, 2)),
        ("c64[1]", "dense[[0.5, -1]]", (1,)),
        ("c128[]", "dense[[1, 0]]", ()),
        ("string[1,2]", 'dense["", "a b"]', (1, 2)),
        ("u4[3]", "dense[15, 0, 9]", (3,)),
        ("i2[5]", "dense[-2, -1, 0, 1, -2]", (5,)),
    ],
)
def test_shapes(type: str, contents: str, shape: tuple[int, ...]):
    found = constant(type, contents)
    assert found.data.shape == found.data.array().shape == shape
    assert print_data(found.data) == contents


@pytest.mark.parametrize(
    ("type", "contents", "message"),
    [
        ("f32[2,0]", "dense[1]", "1 elements are given, the type has 0"),
        ("f32[]", "dense[]", "0 elements are given, the type has 1"),
        ("string[1]", "dense[1]", "elements are strings in quotes"),
        ("c64[1]", "dense[[1, 2, 3]]", "elements of c64 are pairs [real, imaginary]"),
        ("c64[1]", 'dense[["a", 1]]', "elements are numbers"),
        ("i8[1]", "dense[true]", "elements are integers"),
        ("f32[1]", "dense[none]", "elements are numbers"),
        ("f32[?]", "dense[1]", "a constant needs a tensor type with a known shape"),
        ("f32[*]", "dense[1]", "a constant needs a tensor type with a known shape"),
        ("f32[1]", 'elided("sha256:xyz")', "'sha256:xyz' is not a digest 'sha256:...'"),
        (
            "f32[1]",
            f'elided("sha256:{"a" * 65}")',
            f"'sha256:{'a' * 65}' is not a digest 'sha256:...'",
        ),
    ],
)
def test_what_does_not_fit(type: str, contents: str, message: str):
    assert refusal(type, contents) == message


QUANTIZED = [
    ("u8[4] q(scale = 0.5)", Quant.make(0.5)),
    ("u8[4] q(scale = 0.5, zero_point = 255)", Quant.make(0.5, 255)),
    ("i8[4] q(axis = 0, scale = [1, 2, 3, 4])", Quant.make([1, 2, 3, 4], axis=0)),
    (
        "i8[4] q(axis = 0, scale = [1, 2, 3, 4], zero_point = [0, 0, 1, 0])",
        Quant.make([1, 2, 3, 4], [0, 0, 1, 0], axis=0),
    ),
    (
        "i4[4] q(axis = 0, block = 2, scale = f32[2] dense[1, 2])",
        Quant.make([1, 2], axis=0, block=2),
    ),
]


@pytest.mark.parametrize(("type", "quant"), QUANTIZED)
def test_quantized_constants(type: str, quant: Quant):
    found = constant(type, "dense[1, 2, 3, 4]")
    assert found.type == TensorType(Elem.named(type.partition("[")[0]), (4,), quant)
    printed = print_module(found.module)
    assert parse_module(printed).constants["w"].type == found.type
    assert print_module(parse_module(printed)) == printed


@pytest.mark.parametrize(
    ("q", "message"),
    [
        ("scale = 1, scale = 2", "'scale' is given twice"),
        ("scale = 1, block = true", "'block' is an integer"),
        ("scale = [1, [2]], axis = 0", "bad 'scale'"),
        ("scale = 1, zero_point = 1.0", "bad 'zero_point': not integers"),
        ("scale = true", "bad 'scale': not numbers"),
        ("scale = 1, zero_point = [1, 2]", "bad 'zero_point'"),
        ("scale = 1, zero_point = 99999999999999999999", "bad 'zero_point'"),
        ('scale = f32[2] elided("sha256:00"), axis = 0', "scales and zero points can't be elided"),
        ("scales = 1", "q(...) has no 'scales'; did you mean 'scale'?"),
        ("q = 1", "q(...) has no 'q' (it has: axis, block, scale, zero_point)"),
    ],
)
def test_quantization_that_can_not_be_read(q: str, message: str):
    assert message in refusal(f"u8[2] q({q})", "dense[1, 2]")
