"""How far the channels of what products read are evened out, by the error of the products."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from qdqc.ir.clone import clone
from qdqc.ir.graph import Module
from qdqc.ir.types import Elem, Range
from qdqc.quant.arithmetic import activation_quant, dequantize, quantize, rounded, weight_quant
from qdqc.tuning.columns import Product
from qdqc.tuning.product_inputs import Read, Wanted, sharing, stream, within

if TYPE_CHECKING:
    from qdqc.calibration.masking import Masking
    from qdqc.data.fit import Sample

__all__ = ["Inputs", "Smoothing", "inputs_of", "smoothing_of"]

Floats = npt.NDArray[np.float32]

WANTED = Wanted(dense=2048, grouped=0)
"""Columns on which strengths are compared."""

BUDGET = 256 << 20
"""Bytes of rows in memory at a time; what is more takes another run."""

_LEAST = 1e-5
"""Magnitudes below this share of the largest count as this."""


@dataclass
class Inputs:
    """What dense products read: rows [n,K] drawn from all, and the ends of each of K channels."""

    low: Floats
    high: Floats
    drawn: list[Floats] = field(default_factory=list)

    @property
    def rows(self) -> Floats:
        return np.concatenate(self.drawn)

    def add(self, low: Floats, high: Floats, rows: Floats) -> None:
        """Take in what one more sample shows; of too many rows every second is left out."""
        self.low, self.high = np.minimum(self.low, low), np.maximum(self.high, high)
        self.drawn.append(rows)
        if sum(map(len, self.drawn)) > 2 * WANTED.dense:
            self.drawn = [self.rows[::2].copy()]


@dataclass(frozen=True)
class Smoothing:
    """Channels are divided by ``factors`` [K]; errors are in squares of the outputs."""

    strength: float
    factors: npt.NDArray[np.float64]
    error: float


def smoothing_of(
    weights: Sequence[Floats], inputs: Inputs, strengths: Iterable[float], limit: int
) -> tuple[float, list[Smoothing]]:
    """The error of products with weights [O,K] as they are, and evened out by each strength."""
    plain = _error(weights, inputs, np.ones(len(inputs.low)), limit)
    reach = _floored(np.maximum(-inputs.low, inputs.high))
    largest = _floored(np.max([np.abs(w).max(axis=0) for w in weights], axis=0))
    smoothings: list[Smoothing] = []
    for strength in strengths:
        factors = reach**strength / largest ** (1 - strength)
        factors /= np.exp(np.log(factors).mean())
        smoothings.append(Smoothing(strength, factors, _error(weights, inputs, factors, limit)))
    return plain, smoothings


def _floored(array: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    largest = float(array.max(initial=0.0)) or 1.0
    return np.maximum(array.astype(np.float64), _LEAST * largest)


def _error(
    weights: Sequence[Floats], inputs: Inputs, factors: npt.NDArray[np.float64], limit: int
) -> float:
    """The squared error of all products with both sides in 8 bits, over the rows."""
    rows, by = inputs.rows, factors.astype(np.float32)
    low, high = float((inputs.low / by).min()), float((inputs.high / by).max())
    quant = activation_quant(Range(min(0.0, low), max(0.0, high), max(-low, high)), Elem.U8)
    near = rounded(rows / by, quant, Elem.U8)
    total = 0.0
    for weight in weights:
        scaled = weight * by
        scales = weight_quant(scaled, 0, limit)
        stored = dequantize(quantize(scaled, scales, Elem.I8, narrow=True), scales)
        total += float(np.square(near @ stored.T - rows @ weight.T).sum(dtype=np.float64))
    return total


def inputs_of(
    module: Module,
    products: Sequence[Product],
    samples: Iterable[Sample],
    masking: Masking | None = None,
) -> Iterator[tuple[list[Product], Inputs]]:
    """Dense products that read one value, with what they read over the samples."""
    together = sharing(products)
    measured = clone(module)  # smoothing goes on between two parts
    for reads in within(together, _rows_bytes, BUDGET):
        by_read: dict[Read, Inputs] = {}
        for sample in stream(measured, reads, samples, masking, WANTED):
            for read, seen in sample.items():
                inputs = by_read.setdefault(read, Inputs(seen.low, seen.high))
                inputs.add(seen.low, seen.high, seen.columns[0])
        for read, inputs in by_read.items():
            yield together[read], inputs


def _rows_bytes(products: Sequence[Product]) -> int:
    """Of the rows that are drawn, in float32."""
    return 4 * 2 * WANTED.dense * products[0].rows_shape[2]
