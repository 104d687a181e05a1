"""Comparison of two npz files, a piece of an array at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from qdqc.data.archive import Archive
from qdqc.runtime.comparison.compare import Comparison, Similarity, Sums, excepted, mismatch
from qdqc.runtime.comparison.pooled import Pool

__all__ = ["compare_files", "pieces", "similarities"]


def compare_files(
    target: Archive,
    reference: Archive,
    tolerance: tuple[float, float] = (0.99, 0.99),
    excepts: Sequence[str] = (),
    axis: int | None = None,
) -> Comparison:
    """All names that both files have, in the order of the reference; ``excepts`` are globs.

    ``axis`` adds a row for each index along it, named ``logits[:,3]``, for arrays that have it.
    Memory does not grow with the arrays, unless one lies in Fortran's order. Raises QdqcError
    for damaged contents.
    """
    rows: list[Similarity] = []
    for name in reference:
        if name in target and not excepted(name, excepts):
            rows += similarities(name, target, reference, tolerance, axis)
    return Comparison(tuple(rows), tolerance)


def similarities(
    name: str,
    target: Archive,
    reference: Archive,
    tolerance: tuple[float, float] = (0.99, 0.99),
    axis: int | None = None,
) -> Iterator[Similarity]:
    """The row of one array, then those of the indices along ``axis``. Raises QdqcError."""
    ours, theirs = target.header(name), reference.header(name)
    if ours.shape != theirs.shape:
        yield mismatch(name, f"shape {list(ours.shape)} against {list(theirs.shape)}")
        return
    shape, types = ours.shape, (ours.dtype, theirs.dtype)
    if types[0] != types[1] and any(t.kind == "V" for t in types):  # bytes of no known meaning
        yield mismatch(name, f"type {types[0]} against {types[1]}")
        return
    along = None if axis is None or axis >= len(shape) else axis
    whole = Pool()
    parts = Sums(1 if along is None else shape[along])
    for place, value, exact in pieces(name, target, reference):
        whole.see_piece(value, exact, shape, place)
        if along is not None:
            parts.see(value, exact, _indices(place, value.size, shape, along))
    yield whole.similarity(name, tolerance)
    if along is not None:
        head = ":," * along
        for index in range(shape[along]):
            yield parts.similarity(f"{name}[{head}{index}]", tolerance, index)


def pieces(
    name: str, target: Archive, reference: Archive
) -> Iterator[tuple[int, npt.NDArray[np.generic], npt.NDArray[np.generic]]]:
    """Elements of an array in both files from the same place on, and that place."""
    place = 0
    for value, exact in zip(target.chunks(name), reference.chunks(name), strict=True):
        yield place, value, exact
        place += value.size


def _indices(place: int, count: int, shape: tuple[int, ...], axis: int) -> npt.NDArray[np.intp]:
    """The index along an axis of ``count`` elements from a place on."""
    inner = math.prod(shape[axis + 1 :])
    return (np.arange(place, place + count) // inner) % shape[axis]
