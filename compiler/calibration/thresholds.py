"""Threshold methods: from the statistics of a tensor to the range that quantization uses.

Every range holds zero, because zero must have an integer: a tensor that is never negative has
``min`` 0. The threshold is the largest magnitude that symmetric quantization represents.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from compiler.calibration.statistics import Statistics
from compiler.diagnostics import QdqcError, suggestion
from compiler.ir.types import Range

__all__ = [
    "BINS",
    "EMPTY_THRESHOLD",
    "LEVELS",
    "METHODS",
    "clip_errors",
    "kl_divergences",
    "kl_range",
    "max_range",
    "method_named",
    "percentile_range",
]

BINS = 2048
LEVELS = 128
"""Steps of a magnitude in 8 bits; also the smallest cut point that kl looks at."""

EMPTY_THRESHOLD = 1e-5
"""The range of a tensor that was zero throughout: some range, so that a scale exists."""

_TINY = 2.0**-100
"""Magnitudes below this are zero: a scale of theirs would leave the normal float32 numbers."""

TAIL = 1e-4
"""The share of the elements that percentile9999 leaves outside of its range."""

Counts: TypeAlias = npt.NDArray[np.float64]
Method: TypeAlias = Callable[[Statistics, int], Range]


def max_range(stats: Statistics, bins: int = BINS) -> Range:  # noqa: ARG001 - one signature
    """The observed extremes; nothing is clipped."""
    return _ranged(stats, stats.min, stats.max, stats.absmax)


def percentile_range(stats: Statistics, bins: int = BINS) -> Range:  # noqa: ARG001 - as above
    """The range of 99.99 percent of the elements, zeros among them.

    The two tails share the rest equally; a tensor without negative (or positive) elements has
    one tail, which takes all of it. The threshold is the larger magnitude of both ends.
    """
    if not stats.count:
        return max_range(stats)
    two_sided = stats.min < 0 < stats.max
    tail = TAIL / 2 if two_sided else TAIL
    low = stats.quantile(tail) if stats.min < 0 else 0.0
    high = stats.quantile(1 - tail) if stats.max > 0 else 0.0
    return _ranged(stats, low, high, max(-low, high))


def kl_range(stats: Statistics, bins: int = BINS) -> Range:
    """The cut with the smallest Kullback-Leibler divergence, and both extremes clipped to it.

    Zeros are left out, as they are represented exactly. ``kl_divergences`` has the formula.
    The divergence looks at shares and not at distances, so it would gladly cut off the mass
    that a Clip leaves at the end of its range. Therefore only cuts compete whose squared error
    in 8 bits (``clip_errors``) is not above that of keeping everything.
    """
    absmax = stats.absmax
    if absmax < _TINY:
        return max_range(stats)
    counts = stats.magnitudes(bins)
    cuts = np.arange(LEVELS, bins + 1)
    errors = clip_errors(counts, absmax, stats.min, stats.max)[LEVELS - 1 :]
    allowed = errors <= errors[-1]
    divergences = np.where(allowed, kl_divergences(counts), np.inf)
    threshold = float(cuts[int(np.argmin(divergences))]) * absmax / bins
    if not np.isfinite(divergences).any():
        threshold = absmax
    low, high = max(stats.min, -threshold), min(stats.max, threshold)
    return _ranged(stats, low, high, threshold)


def kl_divergences(counts: Counts) -> Counts:
    """KL(P, Q) for every cut i from LEVELS to the number of bins, [bins - LEVELS + 1].

    P is ``counts[:i]`` with all later counts added to its last bin. Q divides ``counts[:i]``
    into LEVELS groups, bin k in group ``k*LEVELS // i``, and spreads the sum of a group evenly
    over the bins where P is not zero. Both are scaled to 1; KL = sum P * ln(P / Q), infinite
    where Q is zero and P is not. (After TensorRT's calibrator, GTC 2017, which looks at every
    cut, too; TPU-MLIR looks at 16.)

    Q is constant on the bins of a group, so sums over bins become sums over LEVELS groups,
    and these are differences of cumulative sums.
    """
    bins = counts.size
    cuts = np.arange(LEVELS, bins + 1)
    total = counts.sum()
    if total <= 0:
        return np.zeros(cuts.size)
    sums = np.concatenate(([0.0], np.cumsum(counts)))
    occupied = np.concatenate(([0], np.cumsum(counts > 0)))
    entropy = np.concatenate(([0.0], np.cumsum(_xlogx(counts))))
    inside, last = sums[cuts], counts[cuts - 1]
    outside = np.maximum(total - inside, 0.0)
    outside[occupied[cuts] == occupied[-1]] = 0.0
    starts = -(-np.arange(LEVELS + 1) * cuts[:, None] // LEVELS)
    mass = np.diff(sums[starts], axis=1)
    size = np.diff(occupied[starts], axis=1)
    mass[size == 0] = 0.0
    size[:, -1] += (last <= 0) & (outside > 0)
    spread = np.log(np.maximum(mass, np.finfo(np.float64).tiny) / np.maximum(size, 1))
    p_log_q = np.einsum("ij,ij->i", mass, spread) + outside * spread[:, -1]
    p_log_p = entropy[cuts - 1] + _xlogx(last + outside)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (p_log_p - p_log_q) / total + np.log(inside / total)
    found[(inside <= 0) | ((outside > 0) & (mass[:, -1] <= 0))] = np.inf
    return found


def clip_errors(counts: Counts, absmax: float, low: float, high: float) -> Counts:
    """Sum of squared errors in 8 bits when magnitudes are cut after bin i, for every i: [bins].

    An element inside costs step**2 / 12, with the step of the range [low, high] after the
    cut over 255 steps; one outside costs its squared distance from the cut.
    """
    bins = counts.size
    width = absmax / bins
    centres = (np.arange(bins) + 0.5) * width
    cuts = np.arange(1, bins + 1) * width
    n = np.cumsum(counts)
    first, second = np.cumsum(counts * centres), np.cumsum(counts * centres**2)
    out_n, out_first, out_second = n[-1] - n, first[-1] - first, second[-1] - second
    clipped = out_second - 2 * cuts * out_first + cuts**2 * out_n
    step = (np.minimum(max(high, 0.0), cuts) + np.minimum(max(-low, 0.0), cuts)) / 255
    return n * step**2 / 12 + np.maximum(clipped, 0.0)


METHODS: dict[str, Method] = {
    "kl": kl_range,
    "max": max_range,
    "percentile9999": percentile_range,
}


def method_named(name: str) -> Method:
    """The method of that name, in any case, ``use_kl`` for ``kl``. Raises QdqcError."""
    found = METHODS.get(name.lower().removeprefix("use_"))
    if found is None:
        raise QdqcError(
            f"there is no calibration method '{name}'{suggestion(name.lower(), METHODS)}",
            notes=[f"--cali_method takes {', '.join(METHODS)}"],
        )
    return found


def _ranged(stats: Statistics, low: float, high: float, threshold: float) -> Range:
    """The range with zero in it; a tensor that is zero throughout gets EMPTY_THRESHOLD."""
    if stats.absmax < _TINY:
        return Range(0.0, EMPTY_THRESHOLD, EMPTY_THRESHOLD)
    if threshold < _TINY:
        return _ranged(stats, stats.min, stats.max, stats.absmax)
    return Range(min(low, 0.0), max(high, 0.0), threshold)


def _xlogx(values: Counts) -> Counts:
    return values * np.log(np.maximum(values, np.finfo(np.float64).tiny))
