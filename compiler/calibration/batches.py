"""Samples by fours: the unit of work, of adding up and of what an interrupted run loses."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from typing import TypeAlias

import numpy as np

from qdqc.data.dataset import Dataset
from qdqc.data.fit import Sample

__all__ = ["BATCH", "Batch", "Batches", "Digest"]

BATCH = 4

Batch: TypeAlias = "int | list[Sample]"
"""The number of a batch that can be read by anybody, or samples that were read already."""


class Batches:
    """The batches of a data set.

    They are ``numbered`` where any sample can be read by itself; then whoever works on a batch
    reads it. ``total`` is the number of samples, 0 where nobody knows.
    """

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples = samples
        self._parted = samples if isinstance(samples, Dataset) else None
        self.numbered = self._parted is not None and self._parted.part(0, 0) is not None
        self.total = len(samples) if isinstance(samples, Dataset | list | tuple) else 0

    def numbers(self, first: int) -> range:
        """The numbers of the batches from that one on, where they are numbered."""
        return range(first, -(-self.total // BATCH))

    def in_a_row(self) -> Iterator[list[Sample]]:
        """The samples of each batch, where they are not numbered."""
        rest = iter(self._samples)
        while batch := list(itertools.islice(rest, BATCH)):
            yield batch

    def read(self, batch: Batch) -> Iterable[Sample]:
        """The samples of a batch, each read when it is asked for."""
        if not isinstance(batch, int):
            return batch
        start = batch * BATCH
        part = self._parted.part(start, start + BATCH) if self._parted is not None else None
        assert part is not None, "only numbered batches are given by number"
        return part


class Digest:
    """sha256 over samples: the names, types, shapes and elements of all arrays."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, sample: Sample) -> None:
        for name, array in sample.items():
            self._hash.update(f"{name} {array.dtype} {array.shape}".encode())
            plain = array.astype(np.str_) if array.dtype.hasobject else array
            self._hash.update(np.ascontiguousarray(plain).reshape(-1).view(np.uint8).data)

    def text(self) -> str:
        """In hexadecimal."""
        return self._hash.hexdigest()
