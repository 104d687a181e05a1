"""Methods that keep all elements, or all but a fixed share of them."""

from __future__ import annotations

from qdqc.calibration.methods.settings import Settings, ranged
from qdqc.calibration.statistics import Statistics
from qdqc.ir.types import Range

__all__ = ["max_range", "mean_minmax_range", "percentile_range"]


def max_range(stats: Statistics, settings: Settings) -> Range:  # noqa: ARG001 - one signature
    """The observed extremes; nothing is clipped. Source: every quantizer's MinMax."""
    return ranged(stats, stats.min, stats.max, stats.absmax)


def mean_minmax_range(stats: Statistics, settings: Settings) -> Range:
    """Means over samples of the least and of the largest element; the threshold is the wider one.

    A single outlier moves the range by its share of the samples. (OpenVINO's mean_min and
    mean_max estimators.)
    """
    if not stats.count:
        return max_range(stats, settings)
    low, high, _ = stats.extremes.means()
    return ranged(stats, low, high, max(-low, high))


def percentile_range(stats: Statistics, settings: Settings) -> Range:
    """The range of 99.99 percent of the elements (``settings.percentile``), zeros among them.

    The two tails share the rest equally; a tensor without negative (or positive) elements has
    one tail, which takes all of it. The threshold is the larger magnitude of both ends.
    (McKinstry et al., Discovering Low-Precision Networks Close to Full-Precision Networks for
    Efficient Embedded Inference, 2018. TPU-MLIR raises the share with the depth of the tensor.)
    """
    if not stats.count:
        return max_range(stats, settings)
    rest = 1 - settings.percentile / 100
    tail = rest / 2 if stats.min < 0 < stats.max else rest
    low = stats.quantile(tail) if stats.min < 0 else 0.0
    high = stats.quantile(1 - tail) if stats.max > 0 else 0.0
    return ranged(stats, low, high, max(-low, high))
