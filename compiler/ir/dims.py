"""Dimensions: an int, a symbolic expression in normal form, or None where nothing is known.

An expression is a polynomial with integer coefficients over atoms. An atom is a symbol
(``N``), or a floor division that does not come out even (``(H+1)//2``). Two expressions that
are equal as polynomials print the same text, so equality of dimensions is equality of text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

__all__ = ["Dim", "Expr", "FloorDiv", "broadcast", "product", "symbol"]

_IDENTIFIER = re.compile(r"[A-Za-z_]\w*\Z")

Atom: TypeAlias = "str | FloorDiv"
Monomial: TypeAlias = tuple[Atom, ...]


@dataclass(frozen=True)
class FloorDiv:
    """``num // den``, kept whole because it does not divide evenly."""

    num: Expr
    den: int | Expr

    def __str__(self) -> str:
        den = str(self.den) if isinstance(self.den, int) else self.den.wrapped()
        return f"{self.num.wrapped()}//{den}"


def _atom_text(atom: Atom) -> str:
    if isinstance(atom, FloorDiv):
        return f"({atom})"
    return atom if _IDENTIFIER.match(atom) else json.dumps(atom)


@dataclass(frozen=True)
class Expr:
    """A polynomial that is not constant: monomials with their coefficients, sorted by text."""

    terms: tuple[tuple[Monomial, int], ...]

    @cached_property
    def text(self) -> str:
        """The normal form: ``N*S``, ``2*H+1``, ``(H+1)//2``."""
        if len(self.terms) == 1:
            (monomial, factor), *_ = self.terms
            if factor == 1 and len(monomial) == 1 and isinstance(monomial[0], FloorDiv):
                return str(monomial[0])
        out = ""
        for monomial, factor in self.terms:
            body = "*".join(_atom_text(a) for a in monomial)
            if not monomial:
                piece = str(abs(factor))
            elif abs(factor) == 1:
                piece = body
            else:
                piece = f"{abs(factor)}*{body}"
            sign = "-" if factor < 0 else ("+" if out else "")
            out += sign + piece
        return out

    def wrapped(self) -> str:
        """The text, in parentheses unless it is a single symbol."""
        return self.text if _IDENTIFIER.match(self.text) else f"({self.text})"

    def __str__(self) -> str:
        return self.text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expr) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __add__(self, other: int | Expr) -> int | Expr:
        total = dict(self.terms)
        for monomial, factor in _terms(other).items():
            total[monomial] = total.get(monomial, 0) + factor
        return _normal(total)

    __radd__ = __add__

    def __mul__(self, other: int | Expr) -> int | Expr:
        total: dict[Monomial, int] = {}
        for left, a in self.terms:
            for right, b in _terms(other).items():
                key = tuple(sorted((*left, *right), key=_atom_text))
                total[key] = total.get(key, 0) + a * b
        return _normal(total)

    __rmul__ = __mul__

    def __neg__(self) -> int | Expr:
        return self * -1

    def __sub__(self, other: int | Expr) -> int | Expr:
        return self + (other * -1)

    def __rsub__(self, other: int) -> int | Expr:
        return self * -1 + other

    def __floordiv__(self, other: int | Expr) -> int | Expr:
        """Floor division; parts that divide evenly leave the division."""
        if other == 1:
            return self
        if isinstance(other, Expr):
            return _divide_by_expr(self, other)
        if other < 0:
            return (self * -1) // -other
        whole: dict[Monomial, int] = {}
        rest: dict[Monomial, int] = {}
        for monomial, factor in self.terms:
            quotient, remainder = divmod(factor, other)
            target = whole if remainder == 0 else rest
            if remainder and not monomial:
                whole[monomial], rest[monomial] = quotient, remainder
            else:
                target[monomial] = quotient if remainder == 0 else factor
        inner = _normal(rest)
        if isinstance(inner, int):
            return _normal(whole) + inner // other
        common = math.gcd(other, *(factor for _, factor in inner.terms))
        if common > 1:
            inner = _normal({m: f // common for m, f in inner.terms})
            assert isinstance(inner, Expr)
        if other == common:
            return _normal(whole) + inner
        return _normal(whole) + Expr((((FloorDiv(inner, other // common),), 1),))

    def __rfloordiv__(self, other: int) -> int | Expr:
        return 0 if other == 0 else Expr((((FloorDiv(_whole(other), self),), 1),))

    def symbols(self) -> set[str]:
        """Every symbol that occurs."""
        names: set[str] = set()
        for monomial, _ in self.terms:
            for atom in monomial:
                if isinstance(atom, str):
                    names.add(atom)
                else:
                    names |= atom.num.symbols()
                    names |= atom.den.symbols() if isinstance(atom.den, Expr) else set()
        return names

    def substitute(self, values: Mapping[str, int | Expr]) -> int | Expr:
        """The expression with symbols replaced, in normal form again."""
        total: int | Expr = 0
        for monomial, factor in self.terms:
            part: int | Expr = factor
            for atom in monomial:
                if isinstance(atom, str):
                    part = part * values.get(atom, symbol(atom))
                else:
                    den = atom.den
                    if isinstance(den, Expr):
                        den = den.substitute(values)
                    part = part * (atom.num.substitute(values) // den)
            total = total + part
        return total


Dim: TypeAlias = int | Expr | None


def _whole(value: int) -> Expr:
    """A constant as an Expr; only ever stands inside a FloorDiv."""
    return Expr((((), value),))


def _divide_by_expr(num: Expr, den: Expr) -> int | Expr:
    if num == den:
        return 1
    if len(den.terms) == 1:
        (monomial, factor), *_ = den.terms
        quotient: dict[Monomial, int] = {}
        for term, coefficient in num.terms:
            left = list(term)
            for atom in monomial:
                if atom not in left:
                    break
                left.remove(atom)
            else:
                if coefficient % factor == 0:
                    quotient[tuple(left)] = coefficient // factor
                    continue
            break
        else:
            return _normal(quotient)
    return Expr((((FloorDiv(num, den),), 1),))


def _terms(value: int | Expr) -> dict[Monomial, int]:
    return {(): value} if isinstance(value, int) else dict(value.terms)


def _normal(total: Mapping[Monomial, int]) -> int | Expr:
    kept = {m: f for m, f in total.items() if f != 0}
    if not kept:
        return 0
    if set(kept) == {()}:
        return kept[()]
    order = sorted(kept.items(), key=lambda e: (not e[0], "*".join(map(_atom_text, e[0]))))
    return Expr(tuple(order))


def symbol(name: str) -> Expr:
    """The symbol of that name; any non-empty text is a name, odd ones print quoted."""
    return Expr((((name,), 1),))


def broadcast(a: Dim, b: Dim) -> Dim:
    """One dimension of two operands that broadcast; None where it is unknown.

    Raises ValueError for two different sizes of which neither is 1.
    """
    if a == b or b == 1:
        return a
    if a == 1:
        return b
    if isinstance(a, int) and isinstance(b, int):
        raise ValueError(f"dimensions {a} and {b} do not broadcast")
    if isinstance(a, int):
        return a
    return b if isinstance(b, int) else None


def product(dims: tuple[Dim, ...]) -> Dim:
    """The number of elements; None as soon as one dimension is unknown (0 wins)."""
    total: int | Expr = 1
    if 0 in dims:
        return 0
    for dim in dims:
        if dim is None:
            return None
        total = total * dim
    return total
