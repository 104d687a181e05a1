"""Comparison of two runs, value by value."""

from __future__ import annotations

import enum
import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "Comparison",
    "Level",
    "Similarity",
    "compare",
    "cosine",
    "euclidean_similarity",
    "inner_product",
    "similarity",
    "sqnr",
]

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
    return _Products.of(a, b).cosine


def euclidean_similarity(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """1 - |a - b| / (|(a + b) / 2| + 1e-7), as TPU-MLIR's npz_tool defines it."""
    return _Products.of(a, b).euclid


def sqnr(value: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Signal to quantization noise in dB: 10 log10(sum r^2 / sum (r - v)^2); inf when equal."""
    return _Products.of(value, reference).sqnr


@dataclass(frozen=True)
class _Products:
    """Sums of products of the elements of two arrays: v.v, r.r, v.r, |r - v|^2, |(v + r) / 2|^2."""

    value: float
    reference: float
    both: float
    noise: float
    middle: float

    @classmethod
    def of(cls, value: npt.ArrayLike, reference: npt.ArrayLike) -> _Products:
        v, r = _flat(value), _flat(reference)
        difference, middle = r - v, (v + r) / 2
        pairs = ((v, v), (r, r), (v, r), (difference, difference), (middle, middle))
        return cls(*(inner_product(a, b) for a, b in pairs))

    @property
    def cosine(self) -> float:
        norms = float(np.sqrt(self.value) * np.sqrt(self.reference))
        if norms == 0:
            return 1.0 if self.value == self.reference == 0 else 0.0
        return float(np.clip(self.both / norms, -1.0, 1.0))

    @property
    def euclid(self) -> float:
        return 1.0 - float(np.sqrt(self.noise)) / (float(np.sqrt(self.middle)) + _EPSILON)

    @property
    def sqnr(self) -> float:
        if self.noise == 0:
            return float("inf")
        return 10 * float(np.log10(self.reference / self.noise)) if self.reference else -np.inf


def inner_product(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """``sum a * b`` of vectors. BLAS would ask for threads, which wait for each other."""
    return float(np.einsum("i,i->", a, b))


def similarity(
    name: str,
    value: npt.NDArray[Any],
    reference: npt.NDArray[Any],
    tolerance: tuple[float, float] = (0.99, 0.99),
) -> Similarity:
    """The figures of one value; NaN and infinities count as 0 and +-1e4 in them.

    Texts are equal or do not match; complex numbers count as their two parts.
    """
    if value.shape != reference.shape:
        return Similarity(name, 0.0, 0.0, float("-inf"), Level.NOT_MATCH)
    if "U" in (value.dtype.kind, reference.dtype.kind):
        if np.array_equal(value, reference):
            return Similarity(name, 1.0, 1.0, float("inf"), Level.EQUAL)
        return Similarity(name, 0.0, 0.0, float("-inf"), Level.NOT_MATCH)
    same = np.array_equal(value, reference, equal_nan=value.dtype.kind in "fc")
    v, r = _finite(value), _finite(reference)
    products = _Products.of(v, r)
    cos, euclid, noise = products.cosine, products.euclid, products.sqnr
    if same:
        level = Level.EQUAL
    elif _is_close(v, r):
        level = Level.CLOSE
    elif cos >= tolerance[0] and euclid >= tolerance[1]:
        level = Level.SIMILAR
    else:
        level = Level.NOT_SIMILAR
    return Similarity(name, cos, euclid, noise, level)


def _is_close(v: npt.NDArray[np.float64], r: npt.NDArray[np.float64]) -> bool:
    """Whether all elements agree to ``_RELATIVE``, as numpy's allclose has it."""
    difference = np.abs(v - r)
    if difference.max(initial=0.0) > _ABSOLUTE + _RELATIVE * np.abs(r).max(initial=0.0):
        return False
    return bool(np.all(difference <= _ABSOLUTE + _RELATIVE * np.abs(r)))


def compare(
    values: Mapping[str, npt.NDArray[Any]],
    reference: Mapping[str, npt.NDArray[Any]],
    tolerance: tuple[float, float] = (0.99, 0.99),
    excepts: Sequence[str] = (),
) -> Comparison:
    """All names that both runs have, in the order of the reference; ``excepts`` are globs."""
    rows = [
        similarity(name, values[name], found, tolerance)
        for name, found in reference.items()
        if name in values and not _excepted(name, excepts)
    ]
    return Comparison(tuple(rows), tolerance)


def _excepted(name: str, excepts: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in excepts)


def _flat(array: npt.ArrayLike) -> npt.NDArray[np.float64]:
    return np.asarray(array).astype(np.float64).reshape(-1)


def _finite(array: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    if array.dtype.kind == "c":
        array = np.stack([np.real(array), np.imag(array)])
    return np.nan_to_num(array.astype(np.float64), nan=0.0, posinf=1e4, neginf=-1e4)
