"""Runs a quantized module beside the float one, and takes figures of every value.

The accumulated error is that of the whole run. The local error is what the nodes behind one value
add on their own: both modules are given the float model's values, rounded as the quantized module
holds them, in front of these nodes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from qdqc.inspection.pairs import Pair, pairs_of
from qdqc.inspection.sketch import Sketches
from qdqc.inspection.weight_errors import WeightFigures, weight_figures
from qdqc.ir.graph import Module
from qdqc.ir.live import Domain, domains_by_name, live_part
from qdqc.ir.types import TensorType
from qdqc.quant.arithmetic import dequantize, quant_range, quantize
from qdqc.runtime.comparison.check import taken
from qdqc.runtime.comparison.choices import choices
from qdqc.runtime.comparison.compare import Comparison, Similarity, inner_product
from qdqc.runtime.comparison.pooled import Pools
from qdqc.runtime.sessions.forced import ForcedRunner
from qdqc.runtime.sessions.session import Feeds, Runner

__all__ = ["Figures", "Measured", "measure"]

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass
class Figures:
    """What is known of one value after the samples.

    ``similarity`` is of the whole run, ``local`` the noise over signal of its own nodes. ``low``
    to ``high`` is what the float values reach, ``covered`` the range that quantization covers.
    ``outside`` is the share of float elements beyond that range; ``rounding`` the noise over signal
    of rounding the float values into it, ``attainable`` that of the range that they do have. Of a
    value whose readers do not tell all numbers apart, only what they do counts.
    """

    pair: Pair
    weights: WeightFigures | None = None
    similarity: Similarity | None = None
    local: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    covered: tuple[float, float] | None = None
    outside: float = 0.0
    rounding: float = 0.0
    attainable: float = 0.0
    mean: float = 0.0
    std: float = 0.0

    @property
    def name(self) -> str:
        return self.pair.name

    @property
    def op(self) -> str:
        node = self.pair.node
        return "input" if node is None else node.op.name

    @property
    def precision(self) -> str:
        """The element type in which the value is stored."""
        type_ = self.pair.stored or self.pair.value.tensor
        return type_.elem.text

    @property
    def sqnr(self) -> float:
        """In dB over the whole run."""
        return math.inf if self.similarity is None else self.similarity.sqnr

    @property
    def avoidable(self) -> float:
        """Noise over signal that another range would not have."""
        return max(0.0, self.rounding - self.attainable)


@dataclass
class Measured:
    """Figures of all values in graph order, the comparison of the runs, and what they give."""

    figures: list[Figures]
    comparison: Comparison
    outputs: Comparison
    samples: int
    agreement: dict[str, float] = field(default_factory=dict)


def measure(
    quantized: Module,
    reference: Module,
    samples: Iterable[Feeds],
    tolerance: tuple[float, float] = (0.99, 0.9),
    sketches: Sketches | None = None,
) -> Measured:
    """Run both modules over the samples, and let ``sketches`` see every value.

    Raises QdqcError where one of them can't run.
    """
    return _Measuring(quantized, reference, tolerance, sketches).over(samples)


class _Measuring:
    def __init__(
        self,
        quantized: Module,
        reference: Module,
        tolerance: tuple[float, float],
        sketches: Sketches | None,
    ) -> None:
        self.quantized, self.reference = quantized, reference
        self.pairs = pairs_of(quantized, reference)
        self.tolerance = tolerance
        self.sketches = sketches
        self.outputs = [v.name for v in quantized.graph.outputs]
        made = [p for p in self.pairs if p.node is not None]
        self.whole = Runner(quantized, [p.tap for p in self.pairs])
        self.exact = Runner(reference, [p.name for p in self.pairs])
        self.local = ForcedRunner(quantized, [p.value.name for p in made])
        self.local_exact = ForcedRunner(reference, [p.name for p in made])
        self.live = domains_by_name(reference.graph)
        self.sums = {p.name: _Sums(p, self.live.get(p.name)) for p in self.pairs}

    def over(self, samples: Iterable[Feeds]) -> Measured:
        decided = choices(self.reference)
        pools, ends, count = Pools(decided=decided), Pools(decided=decided), 0
        agreed: dict[str, list[float]] = {}
        for feeds in samples:
            given = taken(self.quantized, self.reference, feeds)
            exact, run = self.exact.run(feeds), self.whole.run(given)
            values = {p.name: run[p.tap] for p in self.pairs}
            names = [p.name for p in self.pairs]
            pools.see(
                *({n: live_part(v[n], self.live.get(n)) for n in names} for v in (values, exact))
            )
            count += 1
            shared = [n for n in self.outputs if n in exact]
            ends.see(run, {n: exact[n] for n in shared})
            for name in shared:
                agreed.setdefault(name, []).append(_agreement(run[name], exact[name]))
            self._take(given, feeds, exact)
            if self.sketches is not None:
                for name, value in values.items():
                    self.sketches.see(name, exact[name], value)
        comparison = pools.comparison(self.tolerance)
        rows = {r.name: r for r in comparison.rows}
        figures = [self.sums[p.name].figures(rows.get(p.name)) for p in self.pairs]
        means = {n: float(np.mean(a)) for n, a in agreed.items()}
        return Measured(figures, comparison, ends.comparison(self.tolerance), count, means)

    def _take(self, given: Feeds, feeds: Feeds, exact: Arrays) -> None:
        """What each value's own nodes do with the float values."""
        ours, theirs = dict(given), dict(feeds)
        for pair in self.pairs:
            rounded = theirs[pair.name] = self.sums[pair.name].see(exact[pair.name])
            if pair.node is not None:
                ours[pair.value.name] = rounded
        results, wanted = self.local.run(ours), self.local_exact.run(theirs)
        for pair in self.pairs:
            if pair.value.name in results and pair.name in wanted:
                self.sums[pair.name].see_local(results[pair.value.name], wanted[pair.name])


class _Sums:
    """Sums over the samples of one value, of which only the live domain counts."""

    def __init__(self, pair: Pair, live: Domain | None) -> None:
        self.pair, self.live = pair, live
        self.count = self.nonzero = self.beyond = 0
        self.signal = self.lost = self.total = 0.0
        self.local_signal = self.local_lost = 0.0
        self.low, self.high = math.inf, -math.inf
        self.covered = _covered(pair.stored)

    def see(self, exact: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Take in the float values; what they are once they are quantized."""
        exact = live_part(exact, self.live)
        rounded = exact if self.pair.stored is None else _rounded(exact, self.pair.stored)
        if not exact.size:
            return rounded
        self.count += exact.size
        self.nonzero += int(np.count_nonzero(exact))
        self.signal += _squares(exact)
        self.lost += _squares(exact - rounded)
        self.total += float(exact.sum(dtype=np.float64))
        self.low = min(self.low, float(exact.min()))
        self.high = max(self.high, float(exact.max()))
        if self.covered is not None:
            low, high = self.covered
            half = (high - low) / 510
            beyond = (exact < low - half) | (exact > high + half)
            self.beyond += int(np.count_nonzero(beyond))
        return rounded

    def see_local(self, quantized: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> None:
        """Take in what the nodes made of given values in both modules."""
        if quantized.shape != wanted.shape:
            return
        if self.pair.stored is not None:
            quantized = _rounded(quantized, self.pair.stored)
        quantized, wanted = (live_part(a, self.live) for a in (quantized, wanted))
        self.local_signal += _squares(wanted)
        self.local_lost += _squares(wanted - quantized)

    def figures(self, similarity: Similarity | None) -> Figures:
        """All that was taken in."""
        signal, count = self.signal or 1.0, self.count or 1
        step = (max(self.high, 0.0) - min(self.low, 0.0)) / 255
        ideal = step**2 / 12 * self.nonzero / signal if self.pair.stored is not None else 0.0
        mean = self.total / count
        return Figures(
            pair=self.pair,
            weights=weight_figures(self.pair),
            similarity=similarity,
            local=self.local_lost / (self.local_signal or 1.0),
            low=self.low,
            high=self.high,
            covered=self.covered,
            outside=self.beyond / count,
            rounding=self.lost / signal,
            attainable=ideal,
            mean=mean,
            std=math.sqrt(max(0.0, self.signal / count - mean**2)),
        )


def _squares(array: npt.NDArray[Any]) -> float:
    flat = array.astype(np.float64).ravel()
    return inner_product(flat, flat)


def _rounded(array: npt.NDArray[Any], stored: TensorType) -> npt.NDArray[Any]:
    """Float values quantized to a type and dequantized."""
    if stored.quant is None:
        return array
    return dequantize(quantize(array, stored.quant, stored.elem), stored.quant)


def _covered(stored: TensorType | None) -> tuple[float, float] | None:
    if stored is None or stored.quant is None or stored.quant.axis is not None:
        return None
    range_ = quant_range(stored.quant, stored.elem)
    return range_.min, range_.max


def _agreement(value: npt.NDArray[Any], exact: npt.NDArray[Any]) -> float:
    """The share of rows whose largest element stands at the same place."""
    if value.shape != exact.shape or not value.size or value.ndim == 0:
        return 1.0
    return float(np.mean(value.argmax(axis=-1) == exact.argmax(axis=-1)))
