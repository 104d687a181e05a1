"""What a threshold method is: from the statistics of a tensor to the range that it gets.

Every range holds zero, because zero must have an integer: a tensor that is never negative has
``min`` 0. Symmetric quantization uses the threshold, asymmetric min and max.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias, dataclass_transform

import numpy as np
import numpy.typing as npt

from qdqc.calibration.statistics import Detail, Statistics
from qdqc.ir.types import Range
from qdqc.pipeline.spec import print_item
from qdqc.registry import Registry

__all__ = [
    "BINS",
    "EMPTY_THRESHOLD",
    "LEVELS",
    "METHODS",
    "TINY",
    "Counts",
    "Method",
    "clipped",
    "ranged",
]

BINS = 2048
LEVELS = 128
"""Steps of a magnitude in 8 bits; also the smallest cut point that kl looks at."""

EMPTY_THRESHOLD = 1e-5
"""The range of a tensor that was zero throughout: some range, so that a scale exists."""

TINY = 2.0**-100
"""Magnitudes below this are zero: a scale of theirs would leave the normal float32 numbers."""

Counts: TypeAlias = npt.NDArray[np.float64]


METHODS: Registry[Method] = Registry("calibration method", home="qdqc.calibration.methods")
"""The methods with their options at their defaults."""


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Method:
    """Base class of threshold methods; a subclass becomes a frozen dataclass and is registered.

    Annotated fields are the options, each with a default: ``name{field=value}`` on a command
    line. ``detail`` is what the method needs to know of each tensor. An option out of its bounds
    raises QdqcError in ``__post_init__``.
    """

    name: ClassVar[str] = ""
    detail: ClassVar[Detail] = Detail.HISTOGRAM

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclass(frozen=True, kw_only=True)(cls)
        if "name" in vars(cls):
            METHODS.add(cls.name, cls())

    @property
    def spelling(self) -> str:
        """``name{option=value}``, or the name alone where all options are at their defaults."""
        return print_item(self)

    def range(self, stats: Statistics) -> Range:
        """The range of a tensor."""
        raise NotImplementedError(f"{type(self).__name__}.range")


def ranged(stats: Statistics, low: float, high: float, threshold: float) -> Range:
    """The range with zero in it; a tensor that is zero throughout gets EMPTY_THRESHOLD.

    A threshold that cuts everything off gives the observed extremes.
    """
    if stats.absmax < TINY:
        return Range(0.0, EMPTY_THRESHOLD, EMPTY_THRESHOLD)
    if threshold < TINY:
        return ranged(stats, stats.min, stats.max, stats.absmax)
    return Range(min(low, 0.0), max(high, 0.0), threshold)


def clipped(stats: Statistics, threshold: float) -> Range:
    """The observed extremes, clipped to the threshold; that is no more than the largest of them."""
    threshold = min(threshold, stats.absmax)
    return ranged(stats, max(stats.min, -threshold), min(stats.max, threshold), threshold)
