"""Moments of the columns that products read, from samples that stream through the module."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from qdqc.diagnostics import QdqcError
from qdqc.ir.graph import Module
from qdqc.tuning.columns import Product
from qdqc.tuning.product_inputs import Wanted, sharing, stream, within
from qdqc.tuning.rounding import joined, split

if TYPE_CHECKING:
    from qdqc.calibration.masking import Masking
    from qdqc.data.fit import Sample

__all__ = ["BUDGET", "Moments", "moments_of"]

BUDGET = 512 << 20
"""Bytes of second moments in memory at a time; what is more takes another run."""

WANTED = Wanted(dense=10_000, grouped=3_000)
"""Columns that count for second moments: enough for K of 1152, and for the few numbers of a
depthwise kernel."""

MOST = 24 << 20
"""Numbers of second moments of one read. Deeper columns, of K above 5000 or so, are split, and what
the parts have to do with each other is left out."""

_LEAST_PART = 64

_AT_ONCE = 400
"""Columns that are added up in one matrix product."""


class Moments:
    """Of columns of K numbers, group by group: ``mean`` [G,K] and second moments [G,K,K].

    Deep columns are split into P parts of B numbers, the last one filled up with zeros, that
    count as groups of their own: second moments are [GP,B,B] then, and ``split`` brings rows
    into that form. They would take K^2 numbers otherwise, and rounding several times that.
    The mean is that of all columns; second moments are those of a part, drawn evenly. They are
    added up around an ``origin`` near the mean: around zero, what varies little beside its mean
    would lose all its digits.
    """

    def __init__(self, groups: int, depth: int) -> None:
        self.count = 0
        self.drawn = 0
        self.groups, self.depth = groups, depth
        self.parts = _parts_of(groups, depth)
        self._sums = np.zeros((groups, depth))
        self._origin: npt.NDArray[np.float32] | None = None
        self._drawn_sums = np.zeros((groups * self.parts, -(-depth // self.parts)))
        self._products = np.zeros((groups, 0, 0), np.float32)
        self._waiting: list[npt.NDArray[np.float32]] = []

    def update(
        self, sums: npt.NDArray[np.float64], count: int, columns: npt.NDArray[np.float32]
    ) -> None:
        """Take in the sum of ``count`` columns, and [G,n,K] of them one by one."""
        self._sums += sums
        self.count += count
        self._waiting.append(columns)
        if sum(c.shape[1] for c in self._waiting) >= _AT_ONCE:
            self._add_up()

    def _add_up(self) -> None:
        columns = self.split(np.concatenate(self._waiting, axis=1))
        self._waiting.clear()
        if not columns.shape[1]:
            return
        with np.errstate(over="ignore", invalid="ignore"):
            origin = self._origin
            if origin is None:
                origin = columns.mean(axis=1, dtype=np.float64).astype(np.float32)
                self._origin = origin
            columns = columns - origin[:, None, :]
            self.drawn += columns.shape[1]
            self._drawn_sums += columns.sum(axis=1, dtype=np.float64)
            products = columns.transpose(0, 2, 1) @ columns
            self._products = self._products + products if self._products.size else products

    def split(self, rows: npt.NDArray[Any], filling: float = 0.0) -> npt.NDArray[Any]:
        """Rows or columns [G,n,K] by part, [GP,n,B]."""
        return split(rows, self.parts, filling)

    def joined(self, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The inverse of ``split``."""
        return joined(rows, self.parts, self.depth)

    def rows_of(self, parts: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What is known of each part of a row, [GP,n], added up over the row: [G,n]."""
        return parts.reshape(self.groups, self.parts, -1).sum(axis=1)

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """E[c], [G,K]."""
        return self._sums / self.count

    @property
    def is_finite(self) -> bool:
        """Whether no number that was seen, nor its square, is NaN or infinite."""
        if self._waiting:
            self._add_up()
        return bool(np.isfinite(self._sums).all() and np.isfinite(self._products).all())

    def second(self, *, centred: bool) -> npt.NDArray[np.float64]:
        """E[c c^T], or the covariance E[(c - E[c]) (c - E[c])^T]: [G,K,K], or by part."""
        if self._waiting:
            self._add_up()
        assert self._origin is not None
        out = self._products / np.float64(self.drawn)
        shift = self._drawn_sums / self.drawn
        out -= shift[:, :, None] * shift[:, None, :]
        if not centred:
            mean = shift + self._origin
            out += mean[:, :, None] * mean[:, None, :]
        return out


def moments_of(
    module: Module,
    products: Sequence[Product],
    samples: Iterable[Sample],
    masking: Masking | None = None,
    *,
    second: bool = True,
    budget: int = BUDGET,
) -> Iterator[tuple[list[Product], Moments]]:
    """Products that read the same columns, with their moments over the samples.

    Samples stream: neither they nor values of the module are kept. Where the second moments of
    all products exceed the budget, the module runs over the samples once more for each part;
    without ``second`` there are means alone. Raises QdqcError where no sample comes.
    """
    together = sharing(products)
    for reads in within(together, _moment_bytes, budget if second else 0):
        by_read = {read: Moments(*_size(together[read])) for read in reads}
        wanted = WANTED if second else Wanted(0, 0)
        for sample in stream(module, reads, samples, masking, wanted):
            for read, seen in sample.items():
                by_read[read].update(seen.sums, seen.count, seen.columns)
        if not all(moments.count for moments in by_read.values()):
            raise QdqcError(
                "there are no samples to measure the module on",
                notes=["an iterator that has been used up gives nothing; give a list"],
            )
        for read in reads:
            yield together[read], by_read.pop(read)


def _parts_of(groups: int, depth: int) -> int:
    """Into how many parts columns are split."""
    if groups * depth * depth <= MOST:
        return 1
    return -(-depth // max(_LEAST_PART, MOST // (groups * depth)))


def _size(products: Sequence[Product]) -> tuple[int, int]:
    groups, _, depth = products[0].rows_shape
    return groups, depth


def _moment_bytes(products: Sequence[Product]) -> int:
    groups, depth = _size(products)
    return 4 * groups * depth * -(-depth // _parts_of(groups, depth))
