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
    "Grid",
    "best_reach",
    "damped",
    "rounded_in_order",
    "rounded_to_nearest",
    "settled",
    "squared_error",
]

Floats = npt.NDArray[np.floating[Any]]
Doubles = npt.NDArray[np.float64]

_BLOCK = 64
"""Columns whose errors are passed on one by one; those behind get them as one product."""

_REACHES = np.linspace(0.3, 1.0, 15)
"""Shares of the largest weight that a scale may be laid for."""

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

    def spread(self, shape: tuple[int, ...]) -> Grid:
        """The grid with arrays of that shape, of float64."""
        every = (self.step, self.low, self.high)
        return Grid(*(np.broadcast_to(np.asarray(a, np.float64), shape) for a in every))

    def along(self, order: npt.NDArray[np.int64]) -> Grid:
        """With columns in another order."""
        every = (self.step, np.asarray(self.low), np.asarray(self.high))
        return Grid(*(np.take_along_axis(a, order, axis=2) for a in every))

    def column(self, index: int) -> Grid:
        """That of one column, [G,O]."""
        every = (self.step, np.asarray(self.low), np.asarray(self.high))
        return Grid(*(a[:, :, index] for a in every))

    def nearest(self, numbers: Floats) -> Doubles:
        """The whole numbers n nearest to what they stand for."""
        return np.clip(np.rint(numbers / self.step), self.low, self.high)


def rounded_to_nearest(rows: Floats, grid: Grid) -> Doubles:
    """Each weight by itself; the whole numbers, [G,O,K]."""
    return grid.spread(rows.shape).nearest(rows.astype(np.float64))


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
    rows: Doubles, largest: Doubles, second: Doubles, limit: int, *, shared: bool
) -> Doubles:
    """The share of ``largest`` [G,O,1] that a scale of ``limit`` steps errs least at: [G,O,1].

    Rows are clipped to it and rounded to nearest; ``shared`` takes one share for all rows. Of
    equal shares the largest counts.
    """
    held, moments = rows.astype(np.float32), second.astype(np.float32)
    least = np.full(largest.shape, np.inf)
    best = np.ones(largest.shape)
    for share in _REACHES[::-1]:
        step = np.maximum(share * largest / limit, np.finfo(np.float32).tiny).astype(np.float32)
        lost = np.clip(np.rint(held / step), -limit, limit) * step - held
        error = np.einsum("gok,gok->go", lost @ moments, lost)[:, :, None].astype(np.float64)
        if shared:
            error = np.full_like(error, error.sum())
        best = np.where(error < least, share, best)
        least = np.minimum(error, least)
    return best


def rounded_in_order(rows: Floats, grid: Grid, second: Doubles) -> Doubles:
    """GPTQ: columns by falling diagonal of H, each error made up for by the columns behind.

    With ``H^-1 = U^T U``, U upper triangular: where column j errs by e, each column k behind it
    takes up ``-e U[j,k] / U[j,j]``. (Frantar et al., GPTQ: Accurate Post-Training Quantization
    for Generative Pre-trained Transformers, 2022, without its lazy choice of order.) ``second``
    is damped, so that it has an inverse. Returns whole numbers, [G,O,K].
    """
    order = np.argsort(-np.diagonal(second, axis1=1, axis2=2), axis=1, kind="stable")[:, None]
    spread = grid.spread(rows.shape).along(order)
    held = np.take_along_axis(rows.astype(np.float64), order, axis=2)
    moments: Doubles = np.take_along_axis(second, order.transpose(0, 2, 1), axis=1)
    upper = _inverse_factor(np.take_along_axis(moments, order, axis=2))
    out = np.empty_like(held)
    for block in _blocks(held.shape[2]):
        errors = np.empty((*held.shape[:2], block.stop - block.start))
        for place, j in enumerate(range(block.start, block.stop)):
            chosen = spread.column(j)
            out[:, :, j] = chosen.nearest(held[:, :, j])
            error = (held[:, :, j] - out[:, :, j] * chosen.step) / upper[:, None, j, j]
            held[:, :, j : block.stop] -= error[:, :, None] * upper[:, None, j, j : block.stop]
            errors[:, :, place] = error
        held[:, :, block.stop :] -= errors @ upper[:, block, block.stop :]
    return np.take_along_axis(out, np.argsort(order, axis=2, kind="stable"), axis=2)


def settled(whole: Doubles, rows: Floats, grid: Grid, second: Doubles, sweeps: int) -> Doubles:
    """Coordinate descent: each number in turn goes to its best beside the others, as they are.

    The error as a function of one number is a parabola, whose least point on the grid is the
    one nearest to its vertex; so no step makes it larger. Returns whole numbers, [G,O,K].
    """
    spread = grid.spread(rows.shape)
    out = whole.copy()
    diagonal = np.einsum("gkk->gk", second)
    for _ in range(sweeps):
        slope = (out * spread.step - rows) @ second
        for block in _blocks(out.shape[2]):
            before = out[:, :, block].copy()
            for j in range(block.start, block.stop):
                chosen = spread.column(j)
                held = out[:, :, j] * chosen.step
                best = chosen.nearest(held - slope[:, :, j] / diagonal[:, None, j])
                move = best * chosen.step - held
                slope[:, :, block] += move[:, :, None] * second[:, None, j, block]
                out[:, :, j] = best
            moved = (out[:, :, block] - before) * spread.step[:, :, block]
            slope[:, :, block.stop :] += moved @ second[:, block, block.stop :]
    return out


def _blocks(size: int) -> Iterator[slice]:
    for start in range(0, size, _BLOCK):
        yield slice(start, min(size, start + _BLOCK))


def _inverse_factor(second: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """U, upper triangular, with ``U^T U = H^-1``."""
    return np.linalg.cholesky(np.linalg.inv(second)).transpose(0, 2, 1)
