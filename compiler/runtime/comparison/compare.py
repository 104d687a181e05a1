"""Comparison of two runs, value by value."""

from __future__ import annotations

import enum
import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = [
    "Comparison",
    "Level",
    "Similarity",
    "Sums",
    "compare",
    "cosine",
    "euclidean_similarity",
    "excepted",
    "inner_product",
    "mismatch",
    "similarity",
    "sqnr",
]

Floats: TypeAlias = npt.NDArray[np.float64]

_NUMBERS = {"b", "i", "u", "f", "c"}
_EPSILON = 1e-7
_RELATIVE = 1e-3
_ABSOLUTE = 1e-8


class Level(enum.Enum):
    """How near two arrays are, best first."""

    EQUAL = "EQUAL"
    CLOSE = "CLOSE"
    SIMILAR = "SIMILAR"
    NOT_SIMILAR = "NOT_SIMILAR"
    NOT_MATCH = "NOT_MATCH"


@dataclass(frozen=True)
class Similarity:
    """Figures of one value: cosine, euclidean similarity, SQNR in dB, and what they amount to."""

    name: str
    cos: float
    euclid: float
    sqnr: float
    level: Level
    note: str = ""
    """Why there are no figures."""

    @property
    def passed(self) -> bool:
        return self.level not in (Level.NOT_SIMILAR, Level.NOT_MATCH)


@dataclass(frozen=True)
class Comparison:
    """All values of two runs in the order of the reference."""

    rows: tuple[Similarity, ...]
    tolerance: tuple[float, float]

    @property
    def passed(self) -> bool:
        return all(r.passed for r in self.rows)

    @property
    def first_failure(self) -> Similarity | None:
        """The first value in order that is below tolerance."""
        return next((r for r in self.rows if not r.passed), None)

    def worst(self, count: int = 5) -> list[Similarity]:
        """The values with the lowest euclidean similarity."""
        return sorted(self.rows, key=lambda r: r.euclid)[:count]


def cosine(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """a.b / (|a| |b|); 1 when both are zero, 0 when one is."""
    return Sums.of(a, b).cosine()


def euclidean_similarity(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """1 - |a - b| / (|(a + b) / 2| + 1e-7), as TPU-MLIR's npz_tool defines it."""
    return Sums.of(a, b).euclid()


def sqnr(value: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Signal to quantization noise in dB: 10 log10(sum r^2 / sum (r - v)^2); inf when equal."""
    return Sums.of(value, reference).sqnr()


class Sums:
    """Sums over pairs of elements, piece by piece, for each of ``parts`` parts of an array.

    They are v.v, r.r, v.r, |r - v|^2 and |(v + r) / 2|^2. NaN and infinities count as 0 and
    +-1e4; what is no number is equal or not; complex numbers count as their two parts.
    """

    def __init__(self, parts: int = 1) -> None:
        self.parts = parts
        self._sums = np.zeros((5, parts))
        self._same = np.ones(parts, np.bool_)
        self._close = np.ones(parts, np.bool_)
        self._numbers = True

    @classmethod
    def of(cls, value: npt.ArrayLike, reference: npt.ArrayLike) -> Sums:
        """The sums of two whole arrays."""
        made = cls()
        made._add(_flat(value), _flat(reference), None)
        return made

    def see(
        self,
        value: npt.NDArray[Any],
        reference: npt.NDArray[Any],
        part: npt.NDArray[np.intp] | None = None,
    ) -> None:
        """Take in elements at the same places; ``part`` says of which part each of them is."""
        alike = value == reference
        if value.dtype.kind in "fc" and reference.dtype.kind in "fc":
            alike |= np.isnan(value) & np.isnan(reference)
        self._keep(self._same, np.asarray(alike), part)
        if {value.dtype.kind, reference.dtype.kind} - _NUMBERS:
            self._numbers = False
            return
        v, r = _finite(value), _finite(reference)
        twice = part is not None and v.size > part.size
        place = np.tile(part, 2) if part is not None and twice else part
        difference = self._add(v, r, place)
        np.abs(difference, out=difference)
        least = _ABSOLUTE + _RELATIVE * np.abs(r)
        self._keep(self._close, difference <= least, place)

    def _add(self, v: Floats, r: Floats, part: npt.NDArray[np.intp] | None) -> Floats:
        """Add products to the sums; gives the difference."""
        difference, middle = r - v, (v + r) / 2
        pairs = ((v, v), (r, r), (v, r), (difference, difference), (middle, middle))
        for row, (a, b) in zip(self._sums, pairs, strict=True):
            row += (
                inner_product(a, b)
                if part is None
                else np.bincount(part, a * b, minlength=self.parts)
            )
        return difference

    @staticmethod
    def _keep(
        kept: npt.NDArray[np.bool_], fits: npt.NDArray[np.bool_], part: npt.NDArray[np.intp] | None
    ) -> None:
        if part is not None:
            kept[part[~fits.reshape(-1)]] = False
        elif not fits.all():
            kept[:] = False

    def cosine(self, part: int = 0) -> float:
        value, reference, both = self._sums[:3, part]
        norms = float(np.sqrt(value) * np.sqrt(reference))
        if norms == 0:
            return 1.0 if value == reference == 0 else 0.0
        return float(np.clip(both / norms, -1.0, 1.0))

    def euclid(self, part: int = 0) -> float:
        noise, middle = np.sqrt(self._sums[3:, part])
        return 1.0 - float(noise) / (float(middle) + _EPSILON)

    def sqnr(self, part: int = 0) -> float:
        reference, noise = self._sums[1, part], self._sums[3, part]
        if noise == 0:
            return float("inf")
        return 10 * float(np.log10(reference / noise)) if reference else -np.inf

    def similarity(self, name: str, tolerance: tuple[float, float], part: int = 0) -> Similarity:
        """The figures of one part, and what they amount to."""
        if not self._numbers:
            if self._same[part]:
                return Similarity(name, 1.0, 1.0, float("inf"), Level.EQUAL)
            return mismatch(name, "the contents differ")
        cos, euclid = self.cosine(part), self.euclid(part)
        if self._same[part]:
            level = Level.EQUAL
        elif self._close[part]:
            level = Level.CLOSE
        elif cos >= tolerance[0] and euclid >= tolerance[1]:
            level = Level.SIMILAR
        else:
            level = Level.NOT_SIMILAR
        return Similarity(name, cos, euclid, self.sqnr(part), level)


def mismatch(name: str, note: str) -> Similarity:
    """Two values that can't be held against each other."""
    return Similarity(name, 0.0, 0.0, float("-inf"), Level.NOT_MATCH, note)


def inner_product(a: Floats, b: Floats) -> float:
    """``sum a * b`` of vectors. BLAS would ask for threads, which wait for each other."""
    return float(np.einsum("i,i->", a, b))


def similarity(
    name: str,
    value: npt.NDArray[Any],
    reference: npt.NDArray[Any],
    tolerance: tuple[float, float] = (0.99, 0.99),
) -> Similarity:
    """The figures of one value, as ``Sums`` takes them."""
    if value.shape != reference.shape:
        return mismatch(name, f"shape {list(value.shape)} against {list(reference.shape)}")
    sums = Sums()
    sums.see(value, reference)
    return sums.similarity(name, tolerance)


def compare(
    values: Mapping[str, npt.NDArray[Any]],
    reference: Mapping[str, npt.NDArray[Any]],
    tolerance: tuple[float, float] = (0.99, 0.99),
    excepts: Sequence[str] = (),
) -> Comparison:
    """All names that both runs have, in the order of the reference; ``excepts`` are globs."""
    rows = [
        similarity(name, values[name], exact, tolerance)
        for name, exact in reference.items()
        if name in values and not excepted(name, excepts)
    ]
    return Comparison(tuple(rows), tolerance)


def excepted(name: str, excepts: Iterable[str]) -> bool:
    """Whether one of the globs is the name's."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in excepts)


def _flat(array: npt.ArrayLike) -> Floats:
    return np.asarray(array).astype(np.float64).reshape(-1)


def _finite(array: npt.NDArray[Any]) -> Floats:
    flat = array.reshape(-1)
    if flat.dtype.kind == "c":
        flat = np.concatenate([np.real(flat), np.imag(flat)])
    return np.nan_to_num(flat.astype(np.float64), copy=False, nan=0.0, posinf=1e4, neginf=-1e4)
