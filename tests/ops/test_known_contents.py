"""What is said of the contents of small integer tensors, against numpy on random numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qdqc.ops as o
from qdqc.ir.dims import Dim, Expr, symbol
from qdqc.ir.op import Op
from qdqc.ir.types import Elem, TensorType


def held(array: Any) -> TensorType:
    """The type of an array, with its contents."""
    return TensorType(Elem.of(array.dtype), array.shape, value=tuple(array.reshape(-1).tolist()))


def i64(*values: int) -> TensorType:
    return held(np.array(values, np.int64))


FUNCTIONS = [
    (o.Add(), np.add),
    (o.Sub(), np.subtract),
    (o.Mul(), np.multiply),
    (o.Div(), lambda a, b: np.trunc(a / b).astype(np.int64)),
    (o.Min(), np.minimum),
    (o.Max(), np.maximum),
    (o.Equal(), np.equal),
    (o.Less(), np.less),
    (o.Greater(), np.greater),
]


@pytest.mark.parametrize(("op", "function"), FUNCTIONS)
@given(
    a=st.lists(st.integers(-9, 9), min_size=1, max_size=3),
    b=st.lists(st.integers(-9, 9).filter(bool), min_size=1, max_size=3),
)
@settings(max_examples=60)
def test_arithmetic_on_known_contents(op: Op, function: Any, a: list[int], b: list[int]):
    if len(a) != len(b) and 1 not in (len(a), len(b)):
        return
    wanted = np.asarray(function(np.array(a), np.array(b)))
    (found,) = op.infer(i64(*a), i64(*b))
    assert found.shape == wanted.shape
    assert found.value == tuple(wanted.astype(np.int64).tolist())


@pytest.mark.parametrize(("op", "function"), FUNCTIONS)
@given(
    slope=st.integers(1, 3),
    offset=st.integers(-3, 3),
    other=st.integers(1, 5),
    at=st.integers(1, 9),
)
@settings(max_examples=60)
def test_arithmetic_on_symbols(op: Op, function: Any, slope: int, offset: int, other: int, at: int):
    """What is said of an expression holds for every number that its symbol may be."""
    expression = symbol("N") * slope + offset
    a = TensorType(Elem.I64, (1,), value=(expression,))
    (found,) = op.infer(a, i64(other))
    (known,) = found.value or (None,)
    exact = int(function(np.array(slope * at + offset), np.array(other)))
    assert known is None or numeric(known, N=at) == exact


def numeric(dim: Dim, **values: int) -> Dim:
    return dim.substitute(values) if isinstance(dim, Expr) else dim


@given(flags=st.lists(st.booleans(), min_size=1, max_size=4), data=st.data())
def test_where_on_known_contents(flags: list[bool], data: st.DataObject):
    numbers = st.lists(st.integers(-5, 5), min_size=len(flags), max_size=len(flags))
    a, b = data.draw(numbers), data.draw(numbers)
    (found,) = o.Where().infer(held(np.array(flags)), i64(*a), i64(*b))
    assert found.value == tuple(np.where(flags, a, b).tolist())


@given(start=st.integers(-9, 9), limit=st.integers(-9, 9), step=st.integers(-4, 4).filter(bool))
def test_range(start: int, limit: int, step: int):
    wanted = np.arange(start, limit, step)
    operands = (held(np.array(v, np.int64)) for v in (start, limit, step))
    (found,) = o.Range().infer(*operands)
    assert found.shape == wanted.shape
    assert found.value == tuple(wanted.tolist())


@given(at=st.integers(1, 9), step=st.integers(1, 4))
def test_range_up_to_a_symbol(at: int, step: int):
    limit = TensorType(Elem.I64, (), value=(symbol("N"),))
    zero, by = (held(np.array(v, np.int64)) for v in (0, step))
    (found,) = o.Range().infer(zero, limit, by)
    assert found.substitute({"N": at}).shape == np.arange(0, at, step).shape


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    data=st.data(),
)
def test_a_shape_taken_apart_and_put_together(sizes: list[int], data: st.DataObject):
    """Shape, Gather, Slice and Concat on symbols are those on numbers, numbers put in."""
    names = {f"d{i}": d for i, d in enumerate(sizes)}
    x = TensorType(Elem.F32, tuple(symbol(n) for n in names))
    (shape,) = o.Shape().infer(x)
    inside = st.integers(-len(sizes), len(sizes) - 1)
    picks = data.draw(st.lists(inside, min_size=1, max_size=4))
    start, end = data.draw(st.integers(-5, 5)), data.draw(st.integers(-5, 5))
    (picked,) = o.Gather().infer(shape, i64(*picks))
    (cut,) = o.Slice().infer(shape, i64(start), i64(end))
    (both,) = o.Concat(axis=0).infer(picked, cut, i64(7))
    exact = np.array(sizes)
    wanted = [*exact[picks], *exact[start:end], 7]
    assert both.value is not None
    assert [numeric(v, **names) for v in both.value] == wanted
    (grown,) = o.Expand().infer(TensorType(Elem.F32, ()), both)
    assert grown.substitute(names).shape == tuple(wanted)


@given(values=st.lists(st.integers(-300, 300), min_size=1, max_size=4))
@pytest.mark.parametrize("elem", ["i64", "i32", "i16", "i8", "u8", "bool"])
def test_casts_follow_what_fits(elem: str, values: list[int]):
    """What is told after a cast is what numpy converts to."""
    array = np.array(values)
    (found,) = o.Cast(to=elem).infer(held(array))
    converted = array.astype(Elem.named(elem).dtype).astype(np.int64)
    told = found.value or ()
    assert len(told) == len(values)
    assert all(t in (None, c) for t, c in zip(told, converted.tolist(), strict=True))
    fits = elem == "bool" or bool((converted == array).all())
    assert fits == (None not in told)


@given(
    flags=st.lists(st.booleans(), min_size=1, max_size=4),
    others=st.lists(st.booleans(), min_size=4, max_size=4),
)
def test_logic(flags: list[bool], others: list[bool]):
    a, b = np.array(flags), np.array(others[: len(flags)])
    assert o.And().infer(held(a), held(b))[0].value == tuple((a & b).tolist())
    assert o.Or().infer(held(a), held(b))[0].value == tuple((a | b).tolist())
    assert o.Not().infer(held(a))[0].value == tuple((~a).tolist())


@given(value=st.integers(-9, 9), at=st.integers(1, 9))
def test_comparisons_of_symbols_hold_for_every_number(value: int, at: int):
    """An undecided comparison is right, a decided one must be."""
    n = TensorType(Elem.I64, (1,), value=(symbol("N"),))
    for op, function in ((o.Equal(), np.equal), (o.Less(), np.less), (o.Greater(), np.greater)):
        told = op.infer(n, i64(value))[0].value
        assert told is None or told[0] in (None, int(function(at, value)))
        told = op.infer(i64(value), n)[0].value
        assert told is None or told[0] in (None, int(function(value, at)))
