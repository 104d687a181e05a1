"""Statistics of arrays, a piece at a time."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Totals"]

Floats: TypeAlias = npt.NDArray[np.float64]


class Totals:
    """Extremes, moments and odd elements of each of ``parts`` parts of an array.

    Moments are merged as Chan, Golub and LeVeque do (1979), so that a large mean costs no digits
    of the deviation. Only finite elements count, but for ``odd``, which counts the others.
    """

    def __init__(self, parts: int = 1) -> None:
        self.parts = parts
        self.count, self.odd, self.zeros = (np.zeros(parts, np.int64) for _ in range(3))
        self.low, self.high = np.full(parts, np.inf), np.full(parts, -np.inf)
        self.mean, self.magnitude, self._squares = (np.zeros(parts) for _ in range(3))

    def see(self, array: npt.NDArray[Any], part: npt.NDArray[np.intp] | None = None) -> None:
        """Take in elements; ``part`` [n] says of which part each of them is."""
        x = array.reshape(-1).astype(np.float64)
        at = np.zeros(x.size, np.intp) if part is None else part
        finite = np.isfinite(x)
        if not finite.all():
            self.odd += np.bincount(at[~finite], minlength=self.parts)
            x, at = x[finite], at[finite]
        self.zeros += np.bincount(at[x == 0], minlength=self.parts)
        np.minimum.at(self.low, at, x)
        np.maximum.at(self.high, at, x)
        self._merge(x, at)

    def _merge(self, x: Floats, at: npt.NDArray[np.intp]) -> None:
        count = np.bincount(at, minlength=self.parts)
        total = self.count + count
        some, all_ = np.maximum(count, 1), np.maximum(total, 1)
        mean = np.bincount(at, x, self.parts) / some
        squares = np.bincount(at, (x - mean[at]) ** 2, self.parts)
        apart = mean - self.mean
        self._squares += squares + apart**2 * self.count * count / all_
        self.mean += apart * count / all_
        largest = np.bincount(at, np.abs(x), self.parts)
        self.magnitude += (largest - self.magnitude * count) / all_
        self.count = total

    @property
    def std(self) -> Floats:
        """Standard deviation of each part."""
        return np.sqrt(self._squares / np.maximum(self.count, 1))
