"""Dimensions: the normal form means what integers mean, and reads back as itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdqc.ir.dims import Dim, Expr, broadcast, product, symbol
from qdqc.text.parser import parse_dim

NAMES = ["N", "S", "past", "a b"]

leaves = st.sampled_from(NAMES) | st.integers(0, 12)
trees = st.recursive(leaves, lambda t: st.tuples(st.sampled_from("+-*/"), t, t), max_leaves=7)
sizes = st.fixed_dictionaries({name: st.integers(1, 30) for name in NAMES})


def build(tree: Any) -> int | Expr | None:
    """The dimension of a tree; None where it divides by 0."""
    if isinstance(tree, int):
        return tree
    if isinstance(tree, str):
        return symbol(tree)
    operator, left, right = tree[0], build(tree[1]), build(tree[2])
    if left is None or right is None:
        return None
    if operator == "/":
        return None if right == 0 else left // right
    return {"+": left + right, "-": left - right, "*": left * right}[operator]


def value(tree: Any, numbers: dict[str, int]) -> int | None:
    """The number of a tree, by integer arithmetic; None where it divides by 0."""
    if isinstance(tree, int):
        return tree
    if isinstance(tree, str):
        return numbers[tree]
    operator, left, right = tree[0], value(tree[1], numbers), value(tree[2], numbers)
    if left is None or right is None or (operator == "/" and right == 0):
        return None
    return (
        {"+": left + right, "-": left - right, "*": left * right}.get(operator)
        if (operator != "/")
        else left // right
    )


@settings(max_examples=300, deadline=None)
@given(trees, sizes)
def test_normal_form_agrees_with_integers(tree: Any, numbers: dict[str, int]):
    found, expected = build(tree), value(tree, numbers)
    if found is None or expected is None:
        return
    result = found.substitute(numbers) if isinstance(found, Expr) else found
    assert result == expected


@settings(max_examples=300, deadline=None)
@given(trees)
def test_text_reads_back_as_the_same_form(tree: Any):
    found = build(tree)
    if found is not None:
        assert parse_dim(str(found)) == found
        assert str(parse_dim(str(found))) == str(found)


@settings(max_examples=150, deadline=None)
@given(trees, trees, trees)
def test_laws_of_arithmetic_hold_as_text(a: Any, b: Any, c: Any):
    x, y, z = build(a), build(b), build(c)
    if x is None or y is None or z is None:
        return
    assert x + y == y + x
    assert x * y == y * x
    assert (x + y) + z == x + (y + z)
    assert x * (y + z) == x * y + x * z
    assert x - x == 0


N, S, H = symbol("N"), symbol("S"), symbol("H")


@pytest.mark.parametrize(
    ("dim", "text"),
    [
        (N * S, "N*S"),
        (S * N, "N*S"),
        (2 * H + 1, "2*H+1"),
        (1 - H, "-H+1"),
        ((H + 1) // 2, "(H+1)//2"),
        ((4 * H + 2) // 2, "2*H+1"),
        ((H // 2) // 3, "(H//2)//3"),
        (H // -2, "(-H)//2"),
        (5 // N, "(5)//N"),
        (N // N, "1"),
        ((N * S) // N, "S"),
        ((H + 1) // 2 + N, "((H+1)//2)+N"),
        (symbol("a b") + 1, '"a b"+1'),
        (symbol("2x") * 3, '3*"2x"'),
        (0 // N, "0"),
    ],
)
def test_spelling(dim: Dim, text: str):
    assert str(dim) == text
    assert parse_dim(text) == dim


def test_division_by_zero_is_an_error():
    with pytest.raises(ZeroDivisionError):
        _ = N // 0
    with pytest.raises(ZeroDivisionError):
        _ = (5 // N).substitute({"N": 0}) if isinstance(5 // N, Expr) else 0


def test_substitution_of_symbols_by_symbols():
    found = ((N + 1) // 2) * S
    assert isinstance(found, Expr)
    assert found.symbols() == {"N", "S"}
    assert str(found.substitute({"N": 2 * H + 1})) == "H*S+S"


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (1, 5, 5),
        (5, 1, 5),
        (N, 1, N),
        (1, N, N),
        (N, N, N),
        (N, 5, 5),
        (5, N, 5),
        (N, S, None),
        (None, 5, 5),
        (None, None, None),
        (0, 1, 0),
    ],
)
def test_broadcast(a: Dim, b: Dim, expected: Dim):
    assert broadcast(a, b) == expected


def test_broadcast_of_different_sizes():
    with pytest.raises(ValueError, match="4 and 3 do not broadcast"):
        broadcast(4, 3)


def test_product():
    assert product(()) == 1
    assert product((2, N, 3)) == 6 * N
    assert product((2, None)) is None
    assert product((None, 0)) == 0
