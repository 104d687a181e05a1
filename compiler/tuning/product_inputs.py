"""What products read, from samples that stream through a module one after another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from qdqc.calibration.in_order import in_threads
from qdqc.ir.graph import Module
from qdqc.tuning.columns import Columns, Product

if TYPE_CHECKING:
    from qdqc.calibration.masking import Masking
    from qdqc.data.fit import Sample

__all__ = ["Read", "Seen", "Wanted", "sharing", "stream", "within"]

UNKNOWN = 100
"""Samples that are assumed where nobody knows how many come."""

_THREADS = 2

_DRAWN = 256 << 20
"""Bytes of columns that one sample gives; where they would be more, fewer are drawn."""

Read: TypeAlias = "tuple[str, Columns]"
"""A value by its name, and how it is read: products with equal reads meet the same columns."""


@dataclass(frozen=True)
class Wanted:
    """How many columns of all samples together are wanted one by one."""

    dense: int
    grouped: int

    def each(self, columns: Columns, samples: int) -> int:
        """How many of each sample that is."""
        return -(-(self.grouped if columns.groups > 1 else self.dense) // samples)


@dataclass(frozen=True)
class Seen:
    """Of one sample the columns of one read: ``sums`` [G,K] of all ``count``; ``columns``
    [G,n,K] of a part, drawn evenly. ``low`` and ``high`` [C] are the ends of its channels.
    """

    sums: npt.NDArray[np.float64]
    count: int
    columns: npt.NDArray[np.float32]
    low: npt.NDArray[np.float32]
    high: npt.NDArray[np.float32]


def sharing(products: Iterable[Product]) -> dict[Read, list[Product]]:
    """Products by what they read."""
    by_read: dict[Read, list[Product]] = {}
    for product in products:
        by_read.setdefault((product.x.name, product.columns), []).append(product)
    return by_read


def within(
    together: Mapping[Read, list[Product]],
    bytes_of: Callable[[Sequence[Product]], int],
    budget: int,
) -> Iterator[list[Read]]:
    """Reads in parts, in their order, whose bytes fit into the budget; 0 sets no limit.

    ``bytes_of`` is what is held for the products that share a read; one too large is alone.
    """
    part: list[Read] = []
    size = 0
    for read, products in together.items():
        own = bytes_of(products)
        if budget and part and size + own > budget:
            yield part
            part, size = [], 0
        part.append(read)
        size += own
    if part:
        yield part


def stream(
    module: Module,
    reads: Sequence[Read],
    samples: Iterable[Sample],
    masking: Masking | None,
    wanted: Wanted,
) -> Iterator[dict[Read, Seen]]:
    """What each sample in turn shows of each read; padding of dense products is left out."""
    from qdqc.runtime.sessions.session import Runner

    runner = Runner(module, dict.fromkeys(name for name, _ in reads), threads=1, cut=True)
    total = _known_length(samples)

    def look(sample: Sample) -> dict[Read, Seen]:
        values = runner.run(sample)
        seen: dict[Read, Seen] = {}
        for name, columns in reads:
            x = values[name]
            if masking is not None and not columns.kernel:
                x = masking.kept(name, x, sample)
            with np.errstate(over="ignore", invalid="ignore"):
                sums, count = columns.sums(x)
            most = _DRAWN // len(reads) // (4 * max(1, columns.depth(x)))
            drawn = columns.picked(x, min(wanted.each(columns, total), max(1, most)))
            seen[name, columns] = Seen(sums, count, drawn, *columns.ends(x))
        return seen

    return in_threads(look, samples, _THREADS, threading.Event())


def _known_length(samples: Any) -> int:
    """How many samples there are; ``UNKNOWN`` where only reading them would show it."""
    return (len(samples) if hasattr(samples, "__len__") else 0) or UNKNOWN
