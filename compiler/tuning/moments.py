"""Moments of the columns that products read, from samples that stream through the module."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from compiler.calibration.in_order import in_threads
from compiler.diagnostics import QdqcError
from compiler.ir.graph import Module
from compiler.tuning.columns import Columns, Product

if TYPE_CHECKING:
    from compiler.calibration.masking import Masking
    from compiler.data.fit import Sample

__all__ = ["BUDGET", "Moments", "moments_of"]

BUDGET = 512 << 20
"""Bytes of second moments that are held at a time; what is more takes another run."""

ROWS = 10_000
GROUPED_ROWS = 3_000
"""Columns that count for second moments, of all samples together: enough for K of 1152, and for
the few numbers of a depthwise kernel."""

UNKNOWN = 100
"""Samples that are reckoned with where nobody knows how many come."""

_AT_ONCE = 400
"""Columns that are added up in one matrix product."""

_THREADS = 2

_Read: TypeAlias = "tuple[str, Columns]"
_Seen: TypeAlias = "tuple[npt.NDArray[np.float64], int, npt.NDArray[np.float32]]"


class Moments:
    """Of columns of K numbers, group by group: ``mean`` [G,K] and second moments [G,K,K].

    The mean is that of all columns; second moments are those of a part, drawn evenly.
    """

    def __init__(self, groups: int, depth: int) -> None:
        self.count = 0
        self.drawn = 0
        self._sums = np.zeros((groups, depth))
        self._drawn_sums = np.zeros((groups, depth))
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
        columns = np.concatenate(self._waiting, axis=1)
        self._waiting.clear()
        self.drawn += columns.shape[1]
        self._drawn_sums += columns.sum(axis=1, dtype=np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            found = columns.transpose(0, 2, 1) @ columns
        self._products = self._products + found if self._products.size else found

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """E[c], [G,K]."""
        return self._sums / self.count

    @property
    def is_finite(self) -> bool:
        """Whether no number that was seen is NaN or infinite."""
        return bool(np.isfinite(self._sums).all())

    def second(self, *, centred: bool) -> npt.NDArray[np.float64]:
        """E[c c^T], or the covariance E[(c - E[c]) (c - E[c])^T]: [G,K,K]."""
        if self._waiting:
            self._add_up()
        found = self._products / np.float64(self.drawn)
        if centred:
            mean = self._drawn_sums / self.drawn
            found -= mean[:, :, None] * mean[:, None, :]
        return found


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
    sharing: dict[_Read, list[Product]] = {}
    for product in products:
        sharing.setdefault((product.x.name, product.columns), []).append(product)
    for reads in _parts(sharing, budget if second else 0):
        found = {read: Moments(*_size(sharing[read])) for read in reads}
        for seen in _streamed(module, reads, samples, masking, second):
            for read, (sums, count, columns) in seen.items():
                found[read].update(sums, count, columns)
        if not all(moments.count for moments in found.values()):
            raise QdqcError(
                "there are no samples to measure the module on",
                notes=["an iterator that has been used up gives nothing; give a list"],
            )
        for read in reads:
            yield sharing[read], found.pop(read)


def _size(products: list[Product]) -> tuple[int, int]:
    groups, _, depth = products[0].rows_shape
    return groups, depth


def _parts(sharing: dict[_Read, list[Product]], budget: int) -> Iterator[list[_Read]]:
    """Reads in parts whose second moments fit into the budget; 0 is no limit."""
    part: list[_Read] = []
    held = 0
    for read, products in sharing.items():
        groups, depth = _size(products)
        own = 4 * groups * depth * depth
        if budget and part and held + own > budget:
            yield part
            part, held = [], 0
        part.append(read)
        held += own
    if part:
        yield part


def _streamed(
    module: Module,
    reads: Sequence[_Read],
    samples: Iterable[Sample],
    masking: Masking | None,
    second: bool,
) -> Iterator[dict[_Read, _Seen]]:
    """Of each sample in turn, the sum of the columns of each read, their number, and a part."""
    from compiler.runtime.session import Runner

    runner = Runner(module, dict.fromkeys(name for name, _ in reads), threads=1, cut=True)
    total = _known_length(samples)

    def look(sample: Sample) -> dict[_Read, _Seen]:
        values = runner.run(sample)
        found: dict[_Read, _Seen] = {}
        for name, columns in reads:
            x = values[name]
            if masking is not None and not columns.kernel:
                x = masking.kept(name, x, sample)
            limit = (GROUPED_ROWS if columns.groups > 1 else ROWS) if second else 0
            with np.errstate(over="ignore", invalid="ignore"):  # told by ``is_finite``
                sums, count = columns.sums(x)
            found[name, columns] = (sums, count, columns.picked(x, -(-limit // total)))
        return found

    return in_threads(look, samples, _THREADS, threading.Event())


def _known_length(samples: Any) -> int:
    """How many samples there are; ``UNKNOWN`` where only reading them would tell."""
    return (len(samples) if hasattr(samples, "__len__") else 0) or UNKNOWN
