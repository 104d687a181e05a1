"""Rounding weights to a grid so that what the product gives errs least.

For a row w of a weight and the second moments H of the columns that it meets, rounding w to q
errs by ``(q - w) H (q - w)^T`` in the mean square. With H centred, the covariance, the mean of
the error is left to the bias. Arrays are batches over groups: rows [G,O,K], moments [G,K,K].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "Elimination",
    "Grid",
    "best_reach",
    "damped",
    "elimination",
    "joined",
    "rounded_in_order",
    "rounded_to_nearest",
    "row_slabs",
    "settled",
    "split",
    "squared_error",
]

Floats = npt.NDArray[np.floating[Any]]
Doubles = npt.NDArray[np.float64]

_BLOCK = 64
"""Columns whose errors are passed on one by one; those behind get them as one product."""

_AT_ONCE = 1 << 22
"""Weights that are rounded at a time."""

_REACHES = np.linspace(0.3, 1.0, 15)
"""Shares of the largest weight that a scale may cover."""

_LEAST = 1e-12
"""Of a diagonal of zeros, where any number will do."""


@dataclass(frozen=True)
class Grid:
    """What a weight may be: ``step * n`` for whole n from ``low`` to ``high``.

    All three broadcast to the rows [G,O,K].
    """

    step: Floats
    low: npt.ArrayLike
    high: npt.ArrayLike

    def of_rows(self, part: slice) -> Grid:
        """The grid of some of the rows."""
        return Grid(_of_rows(self.step, part), _of_rows(self.low, part), _of_rows(self.high, part))

    def spread(self, shape: tuple[int, ...]) -> tuple[Doubles, Doubles, Doubles]:
        """Steps, least and largest whole numbers, each an array of that shape."""
        step, low, high = (
            np.broadcast_to(np.asarray(a, np.float64), shape)
            for a in (self.step, self.low, self.high)
        )
        return step, low, high


@dataclass(frozen=True)
class Elimination:
    """In which ``order`` columns are rounded [G,K], and what each error passes on [G,K,K]."""

    order: npt.NDArray[np.int64]
    passed: Doubles


def row_slabs(shape: tuple[int, ...]) -> Iterator[slice]:
    """Rows [G,O,K] in parts: rounding takes many times the bytes of what it works on."""
    step = max(1, _AT_ONCE // max(1, shape[0] * shape[2]))
    for start in range(0, shape[1], step):
        yield slice(start, start + step)


def split(rows: npt.NDArray[Any], parts: int, filling: float = 0.0) -> npt.NDArray[Any]:
    """Rows [G,n,K] in so many parts [GP,n,B] each; the last part is filled up."""
    if parts == 1:
        return rows
    groups, count, depth = rows.shape
    each = -(-depth // parts)
    filled = ((0, 0), (0, 0), (0, each * parts - depth))
    whole = np.pad(rows, filled, constant_values=filling).reshape(groups, count, parts, each)
    return np.ascontiguousarray(whole.transpose(0, 2, 1, 3).reshape(groups * parts, count, each))


def joined(rows: npt.NDArray[Any], parts: int, depth: int) -> npt.NDArray[Any]:
    """The inverse of ``split``: [GP,n,B] to [G,n,K]."""
    if parts == 1:
        return rows
    groups, (count, each) = len(rows) // parts, rows.shape[1:]
    whole = rows.reshape(groups, parts, count, each).transpose(0, 2, 1, 3)
    return whole.reshape(groups, count, -1)[:, :, :depth]


def rounded_to_nearest(rows: Floats, grid: Grid) -> Doubles:
    """Each weight by itself; the whole numbers, [G,O,K]."""
    return _nearest(rows.astype(np.float64), *grid.spread(rows.shape))


def damped(second: Doubles, damping: float) -> Doubles:
    """H with ``damping`` times the mean of its diagonal added to the diagonal."""
    out = second.copy()
    diagonal = np.einsum("gkk->gk", out)
    diagonal += np.maximum(damping * diagonal.mean(axis=1, keepdims=True), _LEAST)
    return out


def squared_error(lost: Doubles, second: Doubles) -> Doubles:
    """``d H d^T`` for each row d of what rounding lost: [G,O]."""
    return np.einsum("gok,gok->go", lost @ second, lost)


def best_reach(
    rows: Floats, largest: Doubles, second: Doubles, limit: int, *, shared: bool
) -> Doubles:
    """The share of ``largest`` [G,O,1] that a scale of ``limit`` steps errs least at: [G,O,1].

    Rows are clipped to it and rounded to nearest; ``shared`` takes one share for all rows. Of
    equal shares the largest counts. ``second`` may be that of parts, as ``split`` makes them.
    """
    moments = second.astype(np.float32)
    least = np.full(largest.shape, np.inf)
    best = np.ones(largest.shape)
    for share in _REACHES[::-1]:
        step = np.maximum(share * largest / limit, np.finfo(np.float32).tiny).astype(np.float32)
        error = np.empty(largest.shape)
        for part in row_slabs(rows.shape):
            weights, steps = rows[:, part].astype(np.float32), step[:, part]
            lost = np.clip(np.rint(weights / steps), -limit, limit) * steps - weights
            lost = split(lost, len(moments) // len(rows))
            own = np.einsum("gok,gok->go", lost @ moments, lost)
            error[:, part, 0] = own.reshape(len(rows), -1, own.shape[1]).sum(axis=1)
        if shared:
            error = np.full_like(error, error.sum())
        best = np.where(error < least, share, best)
        least = np.minimum(error, least)
    return best


def elimination(second: Doubles) -> Elimination:
    """How ``rounded_in_order`` goes through columns with these moments."""
    order = np.argsort(-np.diagonal(second, axis1=1, axis2=2), axis=1, kind="stable")
    moments: Doubles = np.take_along_axis(second, order[:, :, None], axis=1)
    passed = _inverse_factor(np.take_along_axis(moments, order[:, None, :], axis=2))
    return Elimination(order, passed / np.einsum("gkk->gk", passed)[:, :, None])


def rounded_in_order(
    rows: Floats, grid: Grid, second: Doubles, by: Elimination | None = None
) -> Doubles:
    """GPTQ: columns by falling diagonal of H, each error made up for by the columns behind.

    With ``H^-1 = U^T U``, U upper triangular: where column j errs by e, each column k behind it
    takes up ``-e U[j,k] / U[j,j]``. (Frantar et al., GPTQ: Accurate Post-Training Quantization
    for Generative Pre-trained Transformers, 2022, without its lazy choice of order.) ``second``
    is damped, so that it has an inverse. ``by`` is its elimination, for those who round rows in
    parts. Returns whole numbers, [G,O,K].
    """
    by = by or elimination(second)
    order, passed = by.order, by.passed  # U[j,k] / U[j,j]
    step, low, high = (_turned(a, order) for a in grid.spread(rows.shape))
    adjusted = _turned(rows, order)
    out = np.empty_like(adjusted)
    for block in _blocks(adjusted.shape[1]):
        errors = np.empty((len(adjusted), block.stop - block.start, adjusted.shape[2]))
        for place, j in enumerate(range(block.start, block.stop)):
            out[:, j] = _nearest(adjusted[:, j], step[:, j], low[:, j], high[:, j])
            error = adjusted[:, j] - out[:, j] * step[:, j]
            inside = slice(j + 1, block.stop)
            adjusted[:, inside] -= passed[:, j, inside, None] * error[:, None]
            errors[:, place] = error
        behind = passed[:, block, block.stop :]
        adjusted[:, block.stop :] -= behind.transpose(0, 2, 1) @ errors
    return _turned_back(out, order)


def settled(whole: Doubles, rows: Floats, grid: Grid, second: Doubles, sweeps: int) -> Doubles:
    """Coordinate descent: each number in turn goes to its best beside the others, as they are.

    The error as a function of one number is a parabola, whose least point on the grid is the
    one nearest to its vertex; so no step makes it larger. Returns whole numbers, [G,O,K].
    """
    order = np.broadcast_to(np.arange(rows.shape[2]), (len(rows), rows.shape[2]))
    step, low, high = (_turned(a, order) for a in grid.spread(rows.shape))
    exact, out = _turned(rows, order), _turned(whole, order)
    inverse = 1 / np.einsum("gkk->gk", second)
    for _ in range(sweeps):
        slope = second @ (out * step - exact)
        for block in _blocks(out.shape[1]):
            before = out[:, block].copy()
            for j in range(block.start, block.stop):
                current = out[:, j] * step[:, j]
                vertex = current - slope[:, j] * inverse[:, j, None]
                out[:, j] = _nearest(vertex, step[:, j], low[:, j], high[:, j])
                move = out[:, j] * step[:, j] - current
                inside = slice(j + 1, block.stop)
                slope[:, inside] += second[:, inside, j, None] * move[:, None]
            moved = (out[:, block] - before) * step[:, block]
            slope[:, block.stop :] += second[:, block.stop :, block] @ moved
    return _turned_back(out, order)


def _nearest(numbers: Doubles, step: Doubles, low: Doubles, high: Doubles) -> Doubles:
    """The whole numbers n from low to high for which ``step * n`` is nearest."""
    whole = np.rint(numbers / step)
    np.maximum(whole, low, out=whole)
    return np.minimum(whole, high, out=whole)


def _turned(rows: Floats, order: npt.NDArray[np.int64]) -> Doubles:
    """[G,O,K] as [G,K,O], columns in an order [G,K]: what is worked on together lies together."""
    turned = rows.transpose(0, 2, 1).astype(np.float64)
    return np.ascontiguousarray(np.take_along_axis(turned, order[:, :, None], axis=1))


def _turned_back(columns: Doubles, order: npt.NDArray[np.int64]) -> Doubles:
    """The inverse of ``_turned``."""
    places = np.argsort(order, axis=1, kind="stable")
    rows = np.take_along_axis(columns, places[:, :, None], axis=1)
    return np.ascontiguousarray(rows.transpose(0, 2, 1))


def _blocks(size: int) -> Iterator[slice]:
    for start in range(0, size, _BLOCK):
        yield slice(start, min(size, start + _BLOCK))


def _of_rows(bound: npt.ArrayLike, part: slice) -> npt.NDArray[Any]:
    array = np.asarray(bound)
    return array[:, part] if array.ndim > 1 and array.shape[1] > 1 else array


def _inverse_factor(second: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """U, upper triangular, with ``U^T U = H^-1``."""
    return np.linalg.cholesky(np.linalg.inv(second)).transpose(0, 2, 1)
