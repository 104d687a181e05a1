"""Samples of one value pooled into one similarity; comparisons of whole runs are made of these."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt

from qdqc.runtime.comparison.choices import NO_CHOICES, Choices
from qdqc.runtime.comparison.compare import (
    Comparison,
    Similarity,
    Sums,
    excepted,
    is_label,
    mismatch,
)

__all__ = ["FEW", "Pool", "Pools", "compare", "similarity"]

FEW = 3
"""A row of at most so many numbers is judged by how it changes from sample to sample."""
_ROWS = 8
"""Rows from which on their spread is known."""
_LEAST_SPREAD = 1e-8
"""Share of its power from which on a value's spread is more than what rounding leaves."""


class Pool:
    """The samples of one value, each beside the reference's.

    Cosine and euclidean similarity are means over the samples; the SQNR is that of all of them
    together. The cosine of one positive number with another is 1 whatever they are. So where a row
    of the reference has at most ``FEW`` numbers, ``likeness`` is ``1 / sqrt(1 + noise / signal)``,
    the cosine that noise of this power leaves where it is independent of the signal. ``noise`` is
    ``sum (r - v)^2``, and ``signal`` the spread ``sum (r - mean)^2`` around the mean of each place
    in the row. With fewer than eight rows, where the rows are all but one (a spread of 1e-8 of
    ``sum r^2``), or where ``spread`` is false because random samples say nothing of it, it is
    ``sum r^2``.
    """

    def __init__(self, *, is_set: bool = False, spread: bool = True) -> None:
        self._is_set, self._by_spread = is_set, spread
        self._sums = Sums()
        self._cosines: list[float] = []
        self._euclids: list[float] = []
        self._unlike = ""
        self._lost = False
        self._width: int | None = None
        self._total: Any = 0.0
        self._power = 0.0
        self._elements = 0

    def see(self, value: npt.NDArray[Any], reference: npt.NDArray[Any]) -> None:
        """Take in one sample: a set of rows of labels (``is_set``), or elements at their places."""
        if self._is_set and value.shape[1:] == reference.shape[1:] and reference.ndim:
            self._sums.see_rows(value, reference)
            return
        if value.shape != reference.shape:
            self._unlike = f"shape {list(value.shape)} against {list(reference.shape)}"
            self._lost |= _all_finite(reference) and not _all_finite(value)
            return
        before, self._sums = self._sums, Sums()
        self.see_piece(value, reference, reference.shape, 0)
        self._cosines.append(self._sums.cosine())
        self._euclids.append(self._sums.euclid())
        self._sums += before

    def see_piece(
        self,
        value: npt.NDArray[Any],
        reference: npt.NDArray[Any],
        shape: tuple[int, ...],
        place: int,
    ) -> None:
        """Take in the elements from a place on of a sample of this shape."""
        self._sums.see(value, reference)
        width = _width(shape)
        if is_label(reference.dtype) or reference.dtype.kind == "c" or width > FEW:
            self._width = 0
        elif self._width in (None, width):
            self._width = width
            exact = np.nan_to_num(reference.reshape(-1).astype(np.float64), posinf=0, neginf=0)
            at = np.arange(place, place + exact.size) % width
            self._total = self._total + np.bincount(at, exact, minlength=width)
            self._power += float((exact**2).sum())
            self._elements += exact.size
        else:
            self._width = 0

    @property
    def few(self) -> bool:
        """Whether the value has so few numbers that their spread over the samples counts."""
        return bool(self._width) and self._elements > 0

    @property
    def lost(self) -> bool:
        """Whether NaN or infinities stand where the reference has none, or others."""
        return self._lost or self._sums.is_apart()

    def likeness(self) -> float:
        """How like the samples are to the reference's: 1 where nothing is lost, at least -1."""
        if self._unlike:
            return -1.0
        if self._sums.labels:
            return self._sums.share_equal()
        if self.few:
            return self._spread_likeness()
        cosine = self._sums.cosine()
        return fmean(self._cosines) if self._cosines and cosine > -1 else cosine

    def _spread_likeness(self) -> float:
        noise = self._sums.noise()
        if noise == 0 or math.isinf(noise):
            return 1.0 if noise == 0 else -1.0
        rows, signal = self._elements / (self._width or 1), self._power
        if self._by_spread and rows >= _ROWS:
            spread = signal - float((self._total**2).sum()) / rows
            signal = spread if spread > _LEAST_SPREAD * signal else signal
        return 1.0 / math.sqrt(1.0 + noise / signal) if signal > 0 else 0.0

    def noise_to_signal(self) -> float:
        """``sum (r - v)^2 / sum r^2`` of all samples; infinite where they can't be compared."""
        if self._unlike:
            return math.inf
        return 10 ** (-self._sums.sqnr() / 10)

    def similarity(self, name: str, tolerance: tuple[float, float]) -> Similarity:
        """The figures of the value, and what they amount to."""
        if self._unlike:
            return mismatch(name, self._unlike)
        euclid = self._sums.euclid()
        if self._euclids and euclid > -1:
            euclid = fmean(self._euclids)
        row = self._sums.similarity(name, tolerance, likeness=(self.likeness(), euclid))
        return replace(row, few=self.few)


def _all_finite(array: npt.NDArray[Any]) -> bool:
    return array.dtype.kind not in "fc" or bool(np.isfinite(array).all())


def _width(shape: tuple[int, ...]) -> int:
    """The numbers of a row: a vector is one, else they lie along the first axis."""
    return max(1, math.prod(shape[1:] if len(shape) > 1 else shape))


class Pools:
    """The pools of all values of a run, by name."""

    def __init__(
        self, excepts: Sequence[str] = (), decided: Choices = NO_CHOICES, *, spread: bool = True
    ) -> None:
        self._excepts, self._spread = excepts, spread
        self._decided = decided
        self._of: dict[str, Pool] = {}

    def see(
        self,
        values: Mapping[str, npt.NDArray[Any]],
        reference: Mapping[str, npt.NDArray[Any]],
    ) -> None:
        """Take in a sample: all names that both runs have, but those of ``excepts``, globs."""
        for name, exact in reference.items():
            if name in values and not excepted(name, self._excepts):
                if name not in self._of:
                    self._of[name] = Pool(is_set=name in self._decided.sets, spread=self._spread)
                self._of[name].see(values[name], exact)

    def comparison(self, tolerance: tuple[float, float]) -> Comparison:
        """All values in the order of the reference.

        Those that were chosen are not judged, but for NaN and infinities: no choice makes these.
        """
        rows: list[Similarity] = []
        for name, pool in self._of.items():
            judged = pool.lost or name not in self._decided.chosen
            rows.append(replace(pool.similarity(name, tolerance), judged=judged))
        return Comparison(tuple(rows), tolerance)


def similarity(
    name: str,
    value: npt.NDArray[Any],
    reference: npt.NDArray[Any],
    tolerance: tuple[float, float] = (0.99, 0.99),
) -> Similarity:
    """The figures of one value on one sample."""
    pool = Pool()
    pool.see(value, reference)
    return pool.similarity(name, tolerance)


def compare(
    values: Mapping[str, npt.NDArray[Any]],
    reference: Mapping[str, npt.NDArray[Any]],
    tolerance: tuple[float, float] = (0.99, 0.99),
    excepts: Sequence[str] = (),
) -> Comparison:
    """All names that both runs have, in the order of the reference; ``excepts`` are globs."""
    pools = Pools(excepts)
    pools.see(values, reference)
    return pools.comparison(tolerance)
