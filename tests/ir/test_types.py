"""Element types, quantization and tensor types as values; and what two types say together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdqc.ir.dims import Dim, Expr, symbol
from qdqc.ir.merge import compatible, merge_types
from qdqc.ir.types import (
    Elem,
    OptionalType,
    Quant,
    Range,
    SequenceType,
    TensorType,
    Type,
)

N, S = symbol("N"), symbol("S")
FLOATS = [
    "f64",
    "f32",
    "f16",
    "bf16",
    "f8e4m3fn",
    "f8e4m3fnuz",
    "f8e5m2",
    "f8e5m2fnuz",
    "f8e8m0",
    "f4e2m1",
]
INTEGERS = ["i64", "i32", "i16", "i8", "i4", "i2", "u64", "u32", "u16", "u8", "u4", "u2"]


@pytest.mark.parametrize("elem", Elem)
def test_each_element_type_is_of_one_class(elem: Elem):
    assert elem.is_float == (elem.text in FLOATS)
    assert elem.is_integer == (elem.text in INTEGERS)
    others = {"bool", "c64", "c128", "string"}
    assert elem.is_float or elem.is_integer or elem.text in others


@pytest.mark.parametrize("elem", Elem)
def test_names_and_dtypes_lead_back_to_the_element_type(elem: Elem):
    assert Elem.named(elem.text) is elem
    assert Elem.of(elem.dtype) is elem


@pytest.mark.parametrize("text", INTEGERS)
def test_limits_are_those_of_twos_complement(text: str):
    low, high = Elem.named(text).limits
    assert high - low == 2 ** int(text[1:]) - 1
    assert low == (0 if text[0] == "u" else -high - 1)


@pytest.mark.parametrize("text", ["i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64"])
def test_limits_agree_with_numpy(text: str):
    elem = Elem.named(text)
    info = np.iinfo(elem.dtype)
    assert elem.limits == (info.min, info.max)
    assert elem.bits == info.bits == 8 * elem.dtype.itemsize


@pytest.mark.parametrize("elem", [Elem.F32, Elem.BOOL, Elem.STRING, Elem.C64])
def test_only_integers_have_limits(elem: Elem):
    with pytest.raises(ValueError, match=f"{elem.text} is not an integer type"):
        _ = elem.limits


@pytest.mark.parametrize("dtype", [str, np.dtype("U7"), np.dtype("S3"), np.object_])
def test_every_kind_of_text_is_a_string(dtype: Any):
    assert Elem.of(dtype) is Elem.STRING


@pytest.mark.parametrize("dtype", ["datetime64[s]", "longdouble", "V4"])
def test_a_dtype_that_onnx_has_not_is_a_key_error(dtype: str):
    with pytest.raises(KeyError):
        Elem.of(dtype)


def test_an_unknown_name_is_a_key_error():
    with pytest.raises(KeyError):
        Elem.named("float32")


def test_one_zero_point_serves_every_scale():
    quant = Quant.make([0.5, 0.25, 1], 7, axis=1)
    assert quant.zero_point.tolist() == [7, 7, 7]
    assert quant.scale.dtype == np.float32
    assert quant.zero_point.dtype == np.int64


def test_the_arrays_of_a_quant_can_not_be_changed():
    given = np.ones(2, np.float32)
    quant = Quant.make(given, axis=0)
    given[0] = 5
    assert quant.scale.tolist() == [1, 1]
    for array in (quant.scale, quant.zero_point):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 3


def test_zero_points_that_do_not_broadcast_are_refused():
    with pytest.raises(ValueError, match="broadcast"):
        Quant.make([1, 2], [0, 0, 0], axis=0)


def test_quants_are_equal_by_contents():
    assert Quant.make(0.1) == Quant.make(np.float32(0.1), 0)
    assert hash(Quant.make([1, 2], axis=0)) == hash(Quant.make((1.0, 2.0), 0, 0))
    assert Quant.make(0.1) != "q(scale = 0.1)"


@pytest.mark.parametrize(
    "other",
    [
        Quant.make([1, 2], [0, 1], axis=0),
        Quant.make([1, 3], axis=0),
        Quant.make([1, 2], axis=1),
        Quant.make([1, 2]),
        Quant.make([[1, 2]], axis=0, block=2),
        Quant.make([[1, 2]], axis=0),
    ],
)
def test_whatever_differs_makes_quants_differ(other: Quant):
    assert Quant.make([1, 2], axis=0) != other


def test_rank_and_shape_of_what_is_known():
    known = TensorType(Elem.F32, (2, 3, 4))
    assert (known.rank, known.static_shape, known.size) == (3, (2, 3, 4), 24)
    half = TensorType(Elem.F32, (N, 3))
    assert (half.rank, half.static_shape, half.size) == (2, None, 3 * N)
    hole = TensorType(Elem.F32, (None, 3))
    assert (hole.rank, hole.static_shape, hole.size) == (2, None, None)
    unknown = TensorType(Elem.F32)
    assert (unknown.rank, unknown.static_shape, unknown.size) == (None, None, None)
    scalar = TensorType(Elem.F32, ())
    assert (scalar.rank, scalar.static_shape, scalar.size) == (0, (), 1)


def test_inference_sees_numbers_and_no_precision():
    quantized = TensorType(Elem.U8, (2,), Quant.make(0.1, 3))
    assert quantized.expressed() == TensorType(Elem.F32, (2,))
    ranged = TensorType(Elem.F16, (2,), range=Range(0, 1, 1))
    assert ranged.expressed() == TensorType(Elem.F16, (2,))
    plain = TensorType(Elem.I64, (2,), value=(1, 2))
    assert plain.expressed() is plain


def test_another_shape_forgets_the_contents():
    held = TensorType(Elem.I64, (2,), value=(1, N))
    assert held.with_shape((3,)) == TensorType(Elem.I64, (3,))
    assert held.with_shape((3,)).value is None


def test_quantizing_forgets_the_range():
    held = TensorType(Elem.F32, (2,), range=Range(-1, 1, 1))
    quant = Quant.make(0.1)
    assert held.with_quant(Elem.I8, quant) == TensorType(Elem.I8, (2,), quant)
    assert held.with_range(None) == TensorType(Elem.F32, (2,))


def test_contents_are_no_part_of_equality():
    a, b = TensorType(Elem.I64, (1,), value=(1,)), TensorType(Elem.I64, (1,), value=(2,))
    assert a == b
    assert hash(a) == hash(b)
    assert "value" not in repr(a)


def test_symbols_are_substituted_in_shapes():
    held = TensorType(Elem.F32, (N, N * S + 1, None, 4), range=Range(0, 1, 1))
    found = held.substitute({"N": 2, "S": N})
    assert found.shape == (2, 2 * N + 1, None, 4)
    assert found.range == held.range
    assert TensorType(Elem.F32).substitute({"N": 2}).shape is None


dims = st.sampled_from([None, 1, 2, 3, N, S, N + 1])
shapes = st.none() | st.lists(dims, max_size=3).map(tuple)
quants = st.sampled_from([None, Quant.make(0.5), Quant.make(0.25, 3)])
ranges = st.sampled_from([None, Range(-1, 1, 1), Range(0, 6, 6)])


@st.composite
def tensors(draw: Any) -> TensorType:
    quant, elem = draw(quants), draw(st.sampled_from([Elem.F32, Elem.U8, Elem.I64]))
    if quant is not None:
        return TensorType(Elem.U8, draw(shapes), quant)
    return TensorType(elem, draw(shapes), range=draw(ranges))


types = st.recursive(tensors(), lambda t: t.map(SequenceType) | t.map(OptionalType), max_leaves=2)


def knows(dim: Dim) -> int:
    """How much a dimension says: nothing, a symbol, a number."""
    return 0 if dim is None else 1 if isinstance(dim, Expr) else 2


@settings(max_examples=200, deadline=None)
@given(types, types)
def test_compatibility_is_mutual(a: Type, b: Type):
    assert compatible(a, b) == compatible(b, a)
    assert compatible(a, a)


@settings(max_examples=200, deadline=None)
@given(tensors(), tensors())
def test_what_merges_stays_compatible_with_both(a: TensorType, b: TensorType):
    if not compatible(a, b):
        return
    found = merge_types(a, b)
    assert compatible(found, a)
    assert compatible(found, b)


@settings(max_examples=200, deadline=None)
@given(types, types)
def test_merging_twice_is_merging_once(a: Type, b: Type):
    assert merge_types(a, a) == a
    if compatible(a, b):
        once = merge_types(a, b)
        assert merge_types(once, b) == once
        assert merge_types(once, a) == once


@settings(max_examples=200, deadline=None)
@given(tensors(), tensors())
def test_merging_never_loses_what_was_known(a: TensorType, b: TensorType):
    if not compatible(a, b):
        return
    found = merge_types(a, b)
    assert isinstance(found, TensorType)
    assert (found.elem, found.quant, found.range) == (a.elem, a.quant, a.range)
    if a.shape is None or found.shape is None:
        assert found.shape == b.shape
        return
    others = b.shape if b.shape is not None else (None,) * len(a.shape)
    for held, other, merged in zip(a.shape, others, found.shape, strict=True):
        assert knows(merged) == max(knows(held), knows(other))
        assert merged in (held, other)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((2, 3), (2, 3), True),
        ((2, 3), (3, 2), False),
        ((2, 3), (2,), False),
        ((2, 3), None, True),
        ((N, 3), (7, 3), True),
        ((N, 3), (S, None), True),
        ((), (), True),
        ((), (1,), False),
    ],
)
def test_compatible_shapes(a: Any, b: Any, expected: bool):
    assert compatible(TensorType(Elem.F32, a), TensorType(Elem.F32, b)) is expected


def test_a_quantized_type_counts_as_its_numbers():
    quantized = TensorType(Elem.U8, (2,), Quant.make(0.1))
    assert compatible(quantized, TensorType(Elem.F32, (2,)))
    assert not compatible(quantized, TensorType(Elem.U8, (2,)))
    assert compatible(quantized, TensorType(Elem.I8, (2,), Quant.make(3, 1)))


def test_types_of_different_kinds_are_never_compatible():
    tensor = TensorType(Elem.F32)
    kinds: list[Type] = [tensor, SequenceType(tensor), OptionalType(tensor)]
    for i, a in enumerate(kinds):
        assert [compatible(a, b) for b in kinds] == [i == j for j in range(3)]
    assert merge_types(kinds[1], tensor) is kinds[1]


def test_contents_come_from_whoever_knows_them():
    plain, known = TensorType(Elem.I64, (2,)), TensorType(Elem.I64, (2,), value=(4, N))
    for a, b in ((plain, known), (known, plain)):
        found = merge_types(a, b)
        assert isinstance(found, TensorType)
        assert found.value == (4, N)
