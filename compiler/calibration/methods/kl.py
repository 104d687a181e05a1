"""Methods by Kullback-Leibler divergence, of the histogram from what 8 bits leave of it."""

from __future__ import annotations

import numpy as np

from qdqc.calibration.methods.extremes import Max
from qdqc.calibration.methods.method import BINS, LEVELS, TINY, Counts, Method, clipped
from qdqc.calibration.statistics import Statistics
from qdqc.diagnostics import QdqcError
from qdqc.ir.types import Range

__all__ = ["Kl", "KlTpu", "clip_errors", "kl_divergences", "tpu_divergences"]


class _Binned(Method):
    """Methods that look at a histogram of so many ``bins`` of magnitudes."""

    bins: int = BINS

    def __post_init__(self) -> None:
        if self.bins < LEVELS:
            raise QdqcError(
                f"{self.bins} histogram bins are less than {LEVELS}, the steps of 8 bits",
                notes=[f"the default is {BINS}"],
            )


class Kl(_Binned):
    """The cut with the smallest Kullback-Leibler divergence, and both extremes clipped to it.

    Zeros are left out, as they are represented exactly. ``kl_divergences`` has the formula.
    The divergence looks at shares and not at distances, so it would gladly cut off the mass
    that a Clip leaves at the end of its range. Therefore only cuts compete whose squared error
    in 8 bits (``clip_errors``) is not above that of keeping everything.
    """

    name = "kl"

    def range(self, stats: Statistics) -> Range:
        absmax, bins = stats.absmax, self.bins
        if absmax < TINY:
            return Max().range(stats)
        counts = stats.magnitudes(bins)
        cuts = np.arange(LEVELS, bins + 1)
        errors = clip_errors(counts, absmax, stats.min, stats.max)[LEVELS - 1 :]
        allowed = errors <= errors[-1]
        divergences = np.where(allowed, kl_divergences(counts), np.inf)
        threshold = float(cuts[int(np.argmin(divergences))]) * absmax / bins
        if not np.isfinite(divergences).any():
            threshold = absmax
        return clipped(stats, threshold)


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
        divergences = (p_log_p - p_log_q) / total + np.log(inside / total)
    divergences[(inside <= 0) | ((outside > 0) & (mass[:, -1] <= 0))] = np.inf
    return divergences


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


class KlTpu(_Binned):
    """TPU-MLIR's kl, for comparison: 16 cuts of 2048 bins, whatever their squared error.

    Bin i counts magnitudes around ``i * w`` with ``w = absmax / (bins - 1)``; the threshold of
    candidate j is ``w * 128 (j + 1)``, and no more than absmax. That tool keeps the bin width of
    the first sample; here it is that of all.
    """

    name = "kl_tpu"

    def range(self, stats: Statistics) -> Range:
        absmax, bins = stats.absmax, self.bins
        if absmax < TINY:
            return Max().range(stats)
        width = absmax / (bins - 1)
        edges = np.append(0.0, np.minimum((np.arange(bins) + 0.5) * width, absmax))
        best = int(np.argmin(tpu_divergences(stats.magnitudes_between(edges))))
        return clipped(stats, width * LEVELS * (best + 1))


def tpu_divergences(counts: Counts) -> Counts:
    """KL(P, Q) for the cuts i = 128, 256, ..., of counts padded to a multiple of 128.

    P is ``counts[:i]`` with all later counts added to its last bin, over their total. Q gives
    each group of i/128 bins its mean over the bins with counts, over ``sum(counts[:i])``.
    ``KL = sum P (log10(P + 1e-30) - log10(Q + 1e-30))``.
    """
    padded = np.append(counts, np.zeros(-counts.size % LEVELS))
    total, divergences = padded.sum(), np.zeros(padded.size // LEVELS)
    for index in range(divergences.size):
        cut = LEVELS * (index + 1)
        inside = padded[:cut]
        groups = inside.reshape(LEVELS, -1)
        used = groups > 0
        mean = groups.sum(axis=1) / np.maximum(used.sum(axis=1), 1)
        q = (used * mean[:, None]).ravel() / max(inside.sum(), np.finfo(np.float64).tiny)
        p = inside.copy()
        p[-1] += padded[cut:].sum()
        p /= max(total, np.finfo(np.float64).tiny)
        divergences[index] = p @ (np.log10(p + 1e-30) - np.log10(q + 1e-30))
    return divergences


def _xlogx(values: Counts) -> Counts:
    return values * np.log(np.maximum(values, np.finfo(np.float64).tiny))
