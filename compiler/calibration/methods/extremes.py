"""Methods that keep all elements, or all but a fixed share of them."""

from __future__ import annotations

from qdqc.calibration.methods.method import Method, ranged
from qdqc.calibration.statistics import Detail, Statistics
from qdqc.diagnostics import QdqcError
from qdqc.ir.types import Range

__all__ = ["Max", "MeanMinMax", "Percentile"]


class Max(Method):
    """The observed extremes; nothing is clipped. Source: every quantizer's MinMax."""

    name = "max"
    detail = Detail.EXTREMES

    def range(self, stats: Statistics) -> Range:
        return ranged(stats, stats.min, stats.max, stats.absmax)


class MeanMinMax(Method):
    """Means over samples of the least and of the largest element; the threshold is the wider one.

    A single outlier moves the range by its share of the samples. (OpenVINO's mean_min and
    mean_max estimators.)
    """

    name = "mean_minmax"
    detail = Detail.EXTREMES

    def range(self, stats: Statistics) -> Range:
        if not stats.count:
            return Max().range(stats)
        low, high, _ = stats.extremes.means()
        return ranged(stats, low, high, max(-low, high))


class Percentile(Method):
    """The range of 99.99 percent of the elements (``percentile``), zeros among them.

    The two tails share the rest equally; a tensor without negative (or positive) elements has
    one tail, which takes all of it. The threshold is the larger magnitude of both ends.
    (McKinstry et al., Discovering Low-Precision Networks Close to Full-Precision Networks for
    Efficient Embedded Inference, 2018. TPU-MLIR raises the share with the depth of the tensor.)
    """

    name = "percentile9999"

    percentile: float = 99.99

    def __post_init__(self) -> None:
        if not 50 < self.percentile <= 100:  # NaN, too
            raise QdqcError(
                f"percentile {self.percentile:g} is not a percentage of the elements to keep",
                notes=["give a number above 50, such as 99.99, up to 100 for all"],
            )

    def range(self, stats: Statistics) -> Range:
        if not stats.count:
            return Max().range(stats)
        rest = 1 - self.percentile / 100
        tail = rest / 2 if stats.min < 0 < stats.max else rest
        low = stats.quantile(tail) if stats.min < 0 else 0.0
        high = stats.quantile(1 - tail) if stats.max > 0 else 0.0
        return ranged(stats, low, high, max(-low, high))
