"""Methods that take their threshold from a formula of each sample, averaged over samples."""

from __future__ import annotations

import math

from qdqc.calibration.methods.method import Method, clipped
from qdqc.calibration.statistics import Detail, Statistics
from qdqc.ir.types import Range

__all__ = ["AciqGauss", "AciqLaplace", "Octav"]

_GAUSS = 3.92403337
_LAPLACE = 9.89675982
"""The threshold with the least squared error in 8 bits, in standard deviations of the normal
distribution and in mean deviations of the Laplace distribution."""

_SPREAD = 0.35 * (1 + math.sqrt(math.pi * math.log(4))) / 2
"""Standard deviation of n normal numbers by their extremes, in (max - min) / sqrt(2 ln n)."""


class Octav(Method):
    """The mean over samples of the threshold that balances clipping and rounding.

    ``octav_threshold`` has the formula and its source. It is taken on each sample's histogram of
    4096 bins or more. Network inputs and the last tensors are no exception, as in TPU-MLIR.
    """

    name = "octav"
    detail = Detail.SAMPLES

    def range(self, stats: Statistics) -> Range:
        return clipped(stats, _clips(stats)[0])


class AciqGauss(Method):
    """``3.924 s`` with ``s = 0.175 (1 + sqrt(pi ln 4)) (max - min) / sqrt(2 ln n)``.

    The mean over samples of n elements each, exact. (Banner et al., Post-training 4-bit
    quantization of convolution networks for rapid-deployment, 2019, for normal numbers.)
    """

    name = "aciq_gauss"
    detail = Detail.EXTREMES

    def range(self, stats: Statistics) -> Range:
        _, _, spread = stats.extremes.means()
        return clipped(stats, _GAUSS * _SPREAD * spread if stats.extremes.count else 0.0)


class AciqLaplace(Method):
    """``9.897 b`` with ``b = mean |x - mean|``, the mean over samples.

    b is taken on each sample's histogram of 4096 bins or more. (As ``aciq_gauss``, for
    numbers with a Laplace distribution.)
    """

    name = "aciq_laplace"
    detail = Detail.SAMPLES

    def range(self, stats: Statistics) -> Range:
        return clipped(stats, _LAPLACE * _clips(stats)[1])


def _clips(stats: Statistics) -> tuple[float, ...]:
    """Means over the histograms of single samples; ValueError where none were made."""
    if stats.count and not stats.clips.count:
        raise ValueError("these statistics hold no details of single samples")
    return stats.clips.means() if stats.count else (0.0, 0.0)
