"""Streaming statistics of a tensor: extremes, counts, and a histogram that grows and merges.

Bins are ``[i*w, (i+1)*w)`` for i in -SIDE .. SIDE-1 and the width w is a power of two. When a
larger value arrives, neighbouring bins are added and w doubles. All edges are multiples of w,
so a histogram depends on the numbers alone, never on their order or on how they were split:
merged statistics equal the statistics of the whole. (Save numbers under 2**-126 widths, whose
quotient by w is subnormal: they may fall on the other side of zero.) SIDE = 8192 leaves 4096 to
8192 bins up to the largest magnitude, two to four for each of the 2048 bins that methods use.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from qdqc.calibration.channels import ChannelMean
from qdqc.calibration.sample_means import ExactMeans, mean_deviation, octav_threshold
from qdqc.ir.types import Array

__all__ = ["SIDE", "Collector", "Detail", "NonFinite", "Scratch", "Statistics"]

SIDE = 8192
"""Bins on each side of zero."""

_SIDE_BITS = SIDE.bit_length() - 1
_MIN_EXPONENT = -126
"""The smallest width is the smallest normal float32; its reciprocal is a float32, too."""

CHUNK = 65536
"""Elements worked on at once; measured best between 8192 and 131072 with a 2 MiB L2 cache."""

Counts: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float32]


class Detail(enum.IntEnum):
    """How much is asked of each tensor; each costs more than the one before and holds it."""

    EXTREMES = 0
    HISTOGRAM = 1
    SAMPLES = 2
    """The histogram, and what the histogram of each single sample gives."""


class Scratch:
    """Buffers of one chunk, shared by all tensors of a thread."""

    def __init__(self) -> None:
        self.scaled = np.empty(CHUNK, np.float32)
        self.narrow = np.empty(CHUNK, np.int32)
        self.index = np.empty(CHUNK, np.intp)
        self.flags = np.empty(CHUNK, np.bool_)


@dataclass
class Statistics:
    """What is known about the numbers of one tensor.

    ``count`` is the number of finite elements, ``zeros`` how many of them are exactly zero.
    NaN and infinities are counted apart and enter nothing else. ``counts`` is int64
    [2*SIDE], bin ``SIDE + i`` holds ``[i*w, (i+1)*w)`` with ``w = 2**exponent``; it is empty
    until something is counted.

    ``extremes`` and ``clips`` are means over samples: least and largest element and
    ``(max - min) / sqrt(2 ln n)`` of n elements; ``octav_threshold`` and ``mean_deviation``. The
    latter two cost a histogram a sample and are there only when ``update_sample`` was used.
    """

    count: int = 0
    zeros: int = 0
    nans: int = 0
    infs: int = 0
    min: float = math.inf
    max: float = -math.inf
    exponent: int = _MIN_EXPONENT
    counts: Counts = field(default_factory=lambda: np.zeros(0, np.int64), repr=False)
    extremes: ExactMeans = field(default_factory=lambda: ExactMeans.of(3), repr=False)
    clips: ExactMeans = field(default_factory=lambda: ExactMeans.of(2), repr=False)

    @property
    def width(self) -> float:
        return math.ldexp(1.0, self.exponent)

    @property
    def absmax(self) -> float:
        """The largest magnitude, 0 where nothing was seen."""
        return max(abs(self.min), abs(self.max)) if self.count else 0.0

    @property
    def nonfinite(self) -> int:
        return self.nans + self.infs

    def update(self, array: Array, scratch: Scratch | None = None) -> None:
        """Take in every element of a sample of any shape; numbers count as float32."""
        flat, low, high = self.update_extremes(array)
        if not flat.size:
            return
        self._widen(_exponent_for(max(-low, high)))
        buffers = scratch or Scratch()
        for start in range(0, flat.size, CHUNK):
            self._count(flat[start : start + CHUNK], low, high, buffers)

    def update_extremes(self, array: Array) -> tuple[Floats, float, float]:
        """Take in everything but the histogram; the finite elements and their extremes."""
        with np.errstate(over="ignore"):
            flat = np.ravel(array).astype(np.float32, copy=False)
        if flat.size and not (math.isfinite(flat.min()) and math.isfinite(flat.max())):
            flat = self._drop_nonfinite(flat)
        if not flat.size:
            return flat, 0.0, 0.0
        low, high = float(flat.min()), float(flat.max())
        self.min, self.max = min(self.min, low), max(self.max, high)
        self.count += flat.size
        spread = (high - low) / math.sqrt(2 * math.log(flat.size)) if flat.size > 1 else 0.0
        self.extremes.update((low, high, spread))
        return flat, low, high

    def update_sample(self, array: Array, scratch: Scratch | None = None) -> None:
        """As ``update``, and take in what the sample's own histogram gives (``clips``)."""
        own = Statistics()
        own.update(array, scratch)
        if own.count:
            threshold = octav_threshold(own.fine_magnitudes(), signed=own.min < 0) * own.width
            deviation = mean_deviation(own.counts, own.zeros) * own.width
            own.clips.update((min(threshold, own.absmax), deviation))
        self.absorb(own)

    def merge(self, other: Statistics) -> Statistics:
        """The statistics of both sets of numbers together; neither operand changes."""
        out = Statistics()
        out.absorb(self)
        out.absorb(other)
        return out

    def absorb(self, other: Statistics) -> None:
        """Take in the numbers that ``other`` has seen."""
        self.count += other.count
        self.zeros += other.zeros
        self.nans += other.nans
        self.infs += other.infs
        self.min, self.max = min(self.min, other.min), max(self.max, other.max)
        if other.counts.size:
            self._widen(other.exponent)
            self.counts += _narrowed(other.counts, self.exponent - other.exponent)
        self.extremes = self.extremes.merge(other.extremes)
        self.clips = self.clips.merge(other.clips)

    def within(self, low: float, high: float) -> Statistics:
        """The statistics of the same numbers clipped to [low, high], with zero left in it.

        What lies in the bin of a bound stays there. The means over samples are those of the
        numbers as they were.
        """
        low, high = min(low, 0.0), max(high, 0.0)
        least, most = (min(max(end, low), high) for end in (self.min, self.max))
        out = replace(self, min=least, max=most)
        if not self.count or (out.min, out.max) == (self.min, self.max):
            return self
        out.counts = self.counts.copy()
        first, last = (self._bin(end) for end in (out.min, out.max))
        below, above = int(out.counts[:first].sum()), int(out.counts[last + 1 :].sum())
        out.counts[:first] = 0
        out.counts[last + 1 :] = 0
        if out.counts.size:
            out.counts[first] += below
            out.counts[last] += above
        out.zeros += below * (out.min == 0) + above * (out.max == 0)
        return out

    def _bin(self, value: float) -> int:
        return SIDE + math.floor(value / self.width)

    def edges(self) -> npt.NDArray[np.float64]:
        """The 2*SIDE + 1 edges of the bins."""
        return np.arange(-SIDE, SIDE + 1, dtype=np.float64) * self.width

    def fine_magnitudes(self) -> Counts:
        """Counts of |x| in SIDE bins of the histogram's width, exact zeros left out: [SIDE]."""
        fine = self.counts[SIDE:] + self.counts[SIDE - 1 :: -1]
        fine[0] -= self.zeros
        return fine

    def magnitudes(self, bins: int) -> npt.NDArray[np.float64]:
        """Counts of |x| in ``bins`` equal bins over [0, absmax], exact zeros left out: [bins]."""
        edges = np.arange(bins + 1) * (self.absmax / bins)
        edges[-1] = self.absmax
        return self.magnitudes_between(edges)

    def magnitudes_between(self, edges: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
        """Counts of |x| between edges from 0 to absmax, exact zeros left out: [edges - 1].

        A fine bin that straddles an edge is divided in proportion, so counts are fractions.
        """
        fine = self.fine_magnitudes()
        used = min(SIDE, int(self.absmax / self.width) + 1)
        cumulative = np.concatenate(([0], np.cumsum(fine[:used]))).astype(np.float64)
        bounds = np.minimum(np.arange(used + 1) * self.width, self.absmax)
        return np.diff(np.interp(edges, bounds, cumulative))

    def quantile(self, share: float) -> float:
        """The value below which ``share`` of the numbers lie, to a fraction of a bin."""
        if not self.count:
            return 0.0
        cumulative = np.concatenate(([0], np.cumsum(self.counts)))
        wanted = share * self.count
        index = int(np.searchsorted(cumulative[1:], wanted, side="left"))
        index = min(index, 2 * SIDE - 1)
        inside = (wanted - float(cumulative[index])) / max(1, int(self.counts[index]))
        value = (index - SIDE + min(1.0, max(0.0, inside))) * self.width
        return min(self.max, max(self.min, value))

    def _drop_nonfinite(self, flat: Floats) -> Floats:
        nans = int(np.count_nonzero(np.isnan(flat)))
        kept = flat[np.isfinite(flat)]
        self.nans += nans
        self.infs += flat.size - kept.size - nans
        return kept

    def _widen(self, exponent: int) -> None:
        if not self.counts.size:
            self.counts, self.exponent = np.zeros(2 * SIDE, np.int64), exponent
        elif exponent > self.exponent:
            self.counts = _narrowed(self.counts, exponent - self.exponent)
            self.exponent = exponent

    def _count(self, chunk: Floats, low: float, high: float, buffers: Scratch) -> None:
        """Count a chunk whose numbers lie in [low, high].

        Multiplying by a power of two is exact, so an element falls in its bin exactly. Counting
        starts at the first bin in use: a tensor that is never negative costs half the bins.
        """
        size = chunk.size
        scaled, narrow = buffers.scaled[:size], buffers.narrow[:size]
        index, flags = buffers.index[:size], buffers.flags[:size]
        per_width = np.float32(math.ldexp(1.0, -self.exponent))
        np.multiply(chunk, per_width, out=scaled)
        if low < 0:
            np.floor(scaled, out=scaled)
        np.equal(chunk, 0, out=flags)
        self.zeros += int(np.count_nonzero(flags))
        np.copyto(narrow, scaled, casting="unsafe")
        first, last = (math.floor(np.float32(v) * per_width) for v in (low, high))
        if first:
            np.subtract(narrow, np.int32(first), out=narrow)
        np.copyto(index, narrow)
        counts = np.bincount(index, minlength=last - first + 1)
        self.counts[SIDE + first : SIDE + last + 1] += counts


@dataclass(frozen=True)
class NonFinite:
    """A tensor that had NaN or infinite elements, and the first sample where it had."""

    name: str
    sample: int


class Collector:
    """Statistics of many tensors by name, in the order in which they were seen.

    ``nonfinite`` lists tensors with NaN or infinite elements in the order in which they were
    seen first. ``channels`` holds means per channel of the names that it is made with,
    ``extremes`` least and largest elements of integers.
    """

    def __init__(
        self, channel_inputs: Iterable[str] = (), detail: Detail = Detail.HISTOGRAM
    ) -> None:
        self.detail = detail
        self.statistics: dict[str, Statistics] = {}
        self.channels = {name: ChannelMean() for name in channel_inputs}
        self.nonfinite: list[NonFinite] = []
        self.extremes: dict[str, tuple[float, float]] = {}
        self.samples = 0
        self._scratch = Scratch()

    def update(self, name: str, array: Array) -> None:
        """Take in the tensor's numbers of the current sample."""
        stats = self.statistics.setdefault(name, Statistics())
        clean = not stats.nonfinite
        if self.detail is Detail.SAMPLES:
            stats.update_sample(array, self._scratch)
        elif self.detail is Detail.HISTOGRAM:
            stats.update(array, self._scratch)
        else:
            stats.update_extremes(array)
        if name in self.channels:
            self.channels[name].update(array)
        if clean and stats.nonfinite:
            self.nonfinite.append(NonFinite(name, self.samples))

    def update_extremes(self, name: str, array: Array) -> None:
        """Note the least and the largest element of integers, which have no ranges."""
        if array.size:
            self._note(name, float(array.min()), float(array.max()))

    def end_sample(self) -> None:
        """The next updates belong to the next sample."""
        self.samples += 1

    def merge(self, other: Collector) -> Collector:
        """Both together; the samples of ``other`` come after those of this one."""
        out = Collector(detail=min(self.detail, other.detail))
        out.absorb(self)
        out.absorb(other)
        return out

    def absorb(self, other: Collector) -> None:
        """Take in what ``other`` has seen: samples that come after those seen so far."""
        for name, stats in other.statistics.items():
            self.statistics.setdefault(name, Statistics()).absorb(stats)
        for name, means in other.channels.items():
            self.channels[name] = self.channels.get(name, ChannelMean()).merge(means)
        for name, (low, high) in other.extremes.items():
            self._note(name, low, high)
        known = {n.name for n in self.nonfinite}
        later = [NonFinite(n.name, n.sample + self.samples) for n in other.nonfinite]
        self.nonfinite += [n for n in later if n.name not in known]
        self.samples += other.samples

    def join(self, other: Collector) -> None:
        """Take in what ``other`` has seen of other tensors in the same samples."""
        self.statistics |= other.statistics
        self.channels |= other.channels
        self.extremes |= other.extremes
        self.nonfinite = sorted([*self.nonfinite, *other.nonfinite], key=lambda n: n.sample)
        self.samples = other.samples

    def _note(self, name: str, low: float, high: float) -> None:
        known = self.extremes.get(name, (math.inf, -math.inf))
        self.extremes[name] = (min(known[0], low), max(known[1], high))


def _exponent_for(absmax: float) -> int:
    """The smallest exponent of a width with ``absmax < SIDE * width``."""
    if absmax == 0:
        return _MIN_EXPONENT
    return max(_MIN_EXPONENT, math.frexp(absmax)[1] - _SIDE_BITS)


def _narrowed(counts: Counts, doublings: int) -> Counts:
    """The counts after the width doubled so many times. Bins -1 and 0 stay apart for ever."""
    steps = min(doublings, _SIDE_BITS)
    if not steps:
        return counts
    kept = counts.reshape(-1, 1 << steps).sum(axis=1)
    out = np.zeros_like(counts)
    half = SIDE >> steps
    out[SIDE - half : SIDE + half] = kept
    return out
