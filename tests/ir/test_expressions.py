"""Laws of symbolic dimensions, and of shapes made of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from qdqc.ir.dims import Dim, Expr, broadcast, product, symbol
from qdqc.text.parser import parse_dim

NAMES = ["N", "S", "H"]
N, S, H = map(symbol, NAMES)


@st.composite
def polynomials(draw: Any) -> int | Expr:
    """A sum of a few products of symbols."""
    total: int | Expr = draw(st.integers(-6, 6))
    for _ in range(draw(st.integers(0, 3))):
        part: int | Expr = draw(st.integers(-4, 4))
        for name in draw(st.lists(st.sampled_from(NAMES), max_size=2)):
            part = part * symbol(name)
        total = total + part
    return total


@st.composite
def expressions(draw: Any) -> int | Expr:
    found = draw(polynomials())
    if draw(st.booleans()):
        found = found // draw(st.integers(1, 6)) + draw(polynomials())
    return found


numbers = st.fixed_dictionaries({name: st.integers(0, 40) for name in NAMES})


def at(found: int | Expr, values: dict[str, int]) -> int:
    result = found.substitute(values) if isinstance(found, Expr) else found
    assert isinstance(result, int)
    return result


@settings(max_examples=150, deadline=None)
@given(polynomials(), polynomials())
def test_equal_polynomials_have_one_text(a: int | Expr, b: int | Expr):
    """However they were made: (a + b)(a - b) is a a - b b."""
    assert (a + b) * (a - b) == a * a - b * b
    assert str((a + b) * (a - b)) == str(a * a - b * b)


@settings(max_examples=150, deadline=None)
@given(expressions(), expressions())
def test_equality_and_hash_agree(a: int | Expr, b: int | Expr):
    assert (a == b) == (str(a) == str(b))
    if a == b:
        assert hash(a) == hash(b)


@settings(max_examples=150, deadline=None)
@given(expressions(), numbers)
def test_equal_expressions_are_equal_everywhere(found: int | Expr, values: dict[str, int]):
    assert at(parse_dim(str(found)), values) == at(found, values)  # type: ignore[arg-type]


@settings(max_examples=150, deadline=None)
@given(expressions(), st.integers(1, 9), numbers)
def test_floor_division_is_that_of_integers(found: int | Expr, by: int, values: dict[str, int]):
    assert at(found // by, values) == at(found, values) // by
    assert at(found // -by, values) == at(found, values) // -by


@settings(max_examples=150, deadline=None)
@given(polynomials(), st.integers(1, 9))
def test_multiplying_and_dividing_by_a_number_is_undone(found: int | Expr, by: int):
    assert (found * by) // by == found


@settings(max_examples=150, deadline=None)
@given(polynomials(), st.sampled_from(NAMES))
def test_multiplying_and_dividing_by_a_symbol_is_undone(found: int | Expr, name: str):
    assume(found != 0)
    assert (found * symbol(name)) // symbol(name) == found


@settings(max_examples=100, deadline=None)
@given(expressions(), st.integers(1, 9), st.integers(1, 9), numbers)
def test_dividing_twice_is_dividing_by_the_product(
    found: int | Expr, a: int, b: int, values: dict[str, int]
):
    assert at((found // a) // b, values) == at(found // (a * b), values)


@settings(max_examples=100, deadline=None)
@given(expressions(), numbers, numbers)
def test_substituting_in_two_steps(found: int | Expr, first: dict[str, int], rest: dict[str, int]):
    """Some symbols now and the others later gives what all at once give."""
    assume(isinstance(found, Expr))
    assert isinstance(found, Expr)
    half = found.substitute({"N": first["N"]})
    if isinstance(half, Expr):
        assert "N" not in half.symbols()
    assert at(half, rest) == at(found, rest | {"N": first["N"]})


@settings(max_examples=100, deadline=None)
@given(expressions())
def test_substituting_nothing_changes_nothing(found: int | Expr):
    if isinstance(found, Expr):
        assert found.substitute({}) == found
        assert found.substitute({name: symbol(name) for name in found.symbols()}) == found
        assert found.symbols() <= set(NAMES)


@settings(max_examples=100, deadline=None)
@given(polynomials())
def test_a_number_in_front_or_behind(found: int | Expr):
    assert 3 + found == found + 3
    assert 3 * found == found * 3
    assert 3 - found == -(found - 3)
    assert found - found == 0
    assert found + found == 2 * found


def test_dividing_a_number_by_a_symbol():
    assert str(7 // N) == "(7)//N"
    assert at(7 // N, {"N": 2}) == 3
    assert 0 // N == 0
    assert str((N + 1) // (2 * S)) == "(N+1)//(2*S)"
    assert at((N + 1) // (2 * S), {"N": 8, "S": 2}) == 2


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("N+N", "2*N"),
        ("2*(N+1)-2", "2*N"),
        ("N-N", "0"),
        ("S*N*1", "N*S"),
        ("(2*N)//2", "N"),
        ("(2*N+1)//2", "N"),
        ("(4*N+2)//4", "N"),
        ("(6*N+3)//4", "(6*N+3)//4"),
        ("(6*N+4)//4", "((3*N)//2)+1"),
        ("-N+3", "-N+3"),
        ("((N))", "N"),
        ("N//1", "N"),
        ('"N"', "N"),
        ("12//5", "2"),
    ],
)
def test_normal_forms(text: str, normal: str):
    assert str(parse_dim(text)) == normal
    assert str(parse_dim(normal)) == normal


dims = st.sampled_from([None, 0, 1, 2, 3, N, S, N + 1])


def tried(a: Dim, b: Dim) -> Any:
    try:
        return broadcast(a, b)
    except ValueError:
        return "error"


@given(dims, dims)
def test_broadcasting_is_mutual(a: Dim, b: Dim):
    assert tried(a, b) == tried(b, a)
    assert tried(a, 1) == a
    assert tried(a, a) == a


@given(dims, dims, numbers)
def test_broadcasting_is_right_wherever_it_is_told(a: Dim, b: Dim, values: dict[str, int]):
    """With numbers for the symbols numpy's rule gives what the symbols gave."""
    found = tried(a, b)
    if found in (None, "error") or a is None or b is None:
        return
    x, y = at(a, values), at(b, values)
    if x == y or 1 in (x, y):
        assert at(found, values) in (x, y)


@given(st.lists(dims, max_size=4), numbers)
def test_the_number_of_elements(found: list[Dim], values: dict[str, int]):
    total = product(tuple(found))
    if 0 in found:
        assert total == 0
    elif None in found:
        assert total is None
    else:
        expected = 1
        for dim in found:
            expected *= at(dim, values)  # type: ignore[arg-type]
        assert at(total, values) == expected  # type: ignore[arg-type]
