"""Comparison of two runs, value by value."""

from __future__ import annotations

import enum
import fnmatch
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = [
    "Comparison",
    "Level",
    "Similarity",
    "Sums",
    "cosine",
    "decibels",
    "euclidean_similarity",
    "excepted",
    "inner_product",
    "is_label",
    "mismatch",
    "sqnr",
]

Floats: TypeAlias = npt.NDArray[np.float64]

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
    """Figures of one value, over all samples together, and what they amount to.

    They are the cosine, the euclidean similarity, the SQNR in dB, the largest difference and the
    share of elements that are equal. Of ``labels`` (indices, booleans, strings) there is that share
    alone, which stands for the first two as well. Where a value has ``few`` numbers a sample, its
    cosine says little, and ``cos`` is ``Pool.likeness``.
    """

    name: str
    cos: float
    euclid: float
    sqnr: float
    level: Level
    note: str = ""
    """Why there are no figures, or why they do not count."""
    max_abs: float = 0.0
    share_equal: float = 1.0
    labels: bool = False
    few: bool = False
    judged: bool = True
    """Whether it decides: what follows from a choice among numbers is only reported."""

    @property
    def passed(self) -> bool:
        return not self.judged or self.level not in (Level.NOT_SIMILAR, Level.NOT_MATCH)


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

    They are v.v, r.r, v.r, |r - v|^2 and |(v + r) / 2|^2, the largest |r - v|, and how many
    elements are equal. NaN and infinities that stand in both arrays are equal and add nothing; at
    different places they make a part unlike, whatever its other figures. Labels are equal or not;
    complex numbers count as their two parts.
    """

    def __init__(self, parts: int = 1) -> None:
        self.parts = parts
        self._sums = np.zeros((5, parts))
        self._largest = np.zeros(parts)
        self._equal = np.zeros(parts)
        self._count = np.zeros(parts)
        self._close = np.ones(parts, np.bool_)
        self._apart = np.zeros(parts, np.bool_)
        self.labels = False

    @classmethod
    def of(cls, value: npt.ArrayLike, reference: npt.ArrayLike) -> Sums:
        """The sums of two whole arrays of numbers."""
        made = cls()
        made._see_numbers(_flat(value), _flat(reference), None)
        return made

    def see(
        self,
        value: npt.NDArray[Any],
        reference: npt.NDArray[Any],
        part: npt.NDArray[np.intp] | None = None,
    ) -> None:
        """Take in elements at the same places; ``part`` says of which part each of them is."""
        if is_label(value.dtype) or is_label(reference.dtype):
            self.labels = True
            self._count_equal(np.asarray(value == reference).reshape(-1), part)
            return
        v, r = _flat(value), _flat(reference)
        twice = part is not None and v.size > part.size
        self._see_numbers(v, r, np.tile(part, 2) if part is not None and twice else part)

    def __iadd__(self, other: Sums) -> Self:
        """Take in the sums of other pairs."""
        self._sums += other._sums
        self._equal += other._equal
        self._count += other._count
        np.maximum(self._largest, other._largest, out=self._largest)
        self._close &= other._close
        self._apart |= other._apart
        self.labels |= other.labels
        return self

    def see_rows(self, value: npt.NDArray[Any], reference: npt.NDArray[Any]) -> None:
        """Take in rows of labels without their order: how many are in both, of the longer one."""
        self.labels = True
        ours, theirs = (
            Counter(tuple(r.reshape(-1).tolist()) for r in a) for a in (value, reference)
        )
        self._equal += (ours & theirs).total()
        self._count += max(len(value), len(reference))

    def _see_numbers(self, v: Floats, r: Floats, part: npt.NDArray[np.intp] | None) -> None:
        equal = (v == r) | (np.isnan(v) & np.isnan(r))
        self._count_equal(equal, part)
        finite = np.isfinite(v) & np.isfinite(r)
        if not finite.all():
            self._mark(self._apart, ~finite & ~equal, part)
            v, r = np.where(finite, v, 0.0), np.where(finite, r, 0.0)
        difference = self._add(v, r, part)
        np.abs(difference, out=difference)
        self._mark(self._close, difference > _ABSOLUTE + _RELATIVE * np.abs(r), part, to=False)
        if part is None:
            self._largest[0] = max(self._largest[0], difference.max(initial=0.0))
        else:
            np.maximum.at(self._largest, part, difference)

    def _count_equal(self, equal: npt.NDArray[np.bool_], part: npt.NDArray[np.intp] | None) -> None:
        if part is None:
            self._equal += np.count_nonzero(equal)
            self._count += equal.size
        else:
            self._equal += np.bincount(part, equal, minlength=self.parts)
            self._count += np.bincount(part, minlength=self.parts)

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
    def _mark(
        marks: npt.NDArray[np.bool_],
        places: npt.NDArray[np.bool_],
        part: npt.NDArray[np.intp] | None,
        *,
        to: bool = True,
    ) -> None:
        if part is not None:
            marks[part[places]] = to
        elif places.any():
            marks[:] = to

    def cosine(self, part: int = 0) -> float:
        """Over the pairs that are finite; -1 where others are not so at the same places."""
        value, reference, both = self._sums[:3, part]
        if self._apart[part]:
            return -1.0
        norms = float(np.sqrt(value) * np.sqrt(reference))
        if norms == 0:
            return 1.0 if value == reference == 0 else 0.0
        return float(np.clip(both / norms, -1.0, 1.0))

    def euclid(self, part: int = 0) -> float:
        if self._apart[part]:
            return -1.0
        noise, middle = np.sqrt(self._sums[3:, part])
        return 1.0 - float(noise) / (float(middle) + _EPSILON)

    def sqnr(self, part: int = 0) -> float:
        reference, noise = self._sums[1, part], self._sums[3, part]
        if self._apart[part]:
            return -math.inf
        if noise and not reference:
            return -math.inf
        return decibels(float(noise / reference)) if noise else math.inf

    def noise(self, part: int = 0) -> float:
        """``sum (r - v)^2``; infinite where numbers are not finite at the same places."""
        return math.inf if self._apart[part] else float(self._sums[3, part])

    def is_apart(self, part: int = 0) -> bool:
        """Whether NaN or infinities stand at other places, or are others."""
        return bool(self._apart[part])

    def share_equal(self, part: int = 0) -> float:
        """The share of elements that are equal; 1 where there are none."""
        count = self._count[part]
        return float(self._equal[part] / count) if count else 1.0

    def similarity(
        self,
        name: str,
        tolerance: tuple[float, float],
        part: int = 0,
        likeness: tuple[float, float] | None = None,
    ) -> Similarity:
        """The figures of one part, and what they amount to.

        ``likeness`` stands for its cosine and euclidean similarity.
        """
        share = self.share_equal(part)
        if self.labels:
            level = Level.SIMILAR if share >= tolerance[0] else Level.NOT_SIMILAR
            db = math.inf if share == 1 else -math.inf
            level = Level.EQUAL if share == 1 else level
            return Similarity(name, share, share, db, level, share_equal=share, labels=True)
        cos, euclid = likeness or (self.cosine(part), self.euclid(part))
        if share == 1:
            level = Level.EQUAL
        elif self._close[part] and not self._apart[part]:
            level = Level.CLOSE
        elif cos >= tolerance[0] and euclid >= tolerance[1] and not self._apart[part]:
            level = Level.SIMILAR
        else:
            level = Level.NOT_SIMILAR
        note = "NaN or infinity at other places" if self._apart[part] else ""
        figures = (cos, euclid, self.sqnr(part), level, note, float(self._largest[part]), share)
        return Similarity(name, *figures)


def mismatch(name: str, note: str) -> Similarity:
    """Two values that can't be held against each other."""
    return Similarity(name, 0.0, 0.0, -math.inf, Level.NOT_MATCH, note, math.inf, 0.0)


def is_label(dtype: np.dtype[Any]) -> bool:
    """Whether values of a type are equal or not, but not near: indices, booleans, strings.

    Integers of 8 and 16 bits are pixels or quantized numbers.
    """
    if dtype.kind in "iu":
        return dtype.itemsize >= 4
    return dtype.kind not in "fcV" or dtype.type is np.void


def decibels(noise: float) -> float:
    """A share of noise over signal as SQNR: ``-10 log10``; infinite where there is none."""
    return -10 * math.log10(noise) if noise > 0 else math.inf


def inner_product(a: Floats, b: Floats) -> float:
    """``sum a * b`` of vectors. BLAS would ask for threads, which wait for each other."""
    return float(np.einsum("i,i->", a, b))


def excepted(name: str, excepts: Iterable[str]) -> bool:
    """Whether one of the globs is the name's."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in excepts)


def _flat(array: npt.ArrayLike) -> Floats:
    flat = np.asarray(array).reshape(-1)
    if flat.dtype.kind == "c":
        flat = np.concatenate([np.real(flat), np.imag(flat)])
    return flat.astype(np.float64)
