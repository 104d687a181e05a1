"""Threshold methods by name: from the statistics of a tensor to the range that it gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from qdqc.calibration.methods.analytic import (
    aciq_gauss_range,
    aciq_laplace_range,
    octav_range,
)
from qdqc.calibration.methods.extremes import (
    max_range,
    mean_minmax_range,
    percentile_range,
)
from qdqc.calibration.methods.kl import kl_range, kl_tpu_range
from qdqc.calibration.methods.mse import mse_range
from qdqc.calibration.methods.settings import BINS, LEVELS, PLAIN, Settings
from qdqc.calibration.statistics import Detail, Statistics
from qdqc.diagnostics import QdqcError, suggestion
from qdqc.ir.types import Range

__all__ = [
    "BINS",
    "DEFAULT",
    "LEVELS",
    "METHODS",
    "PLAIN",
    "Method",
    "Settings",
    "detail_of",
    "method_name",
    "method_named",
]

Method: TypeAlias = Callable[[Statistics, Settings], Range]

METHODS: dict[str, Method] = {
    "kl": kl_range,
    "kl_tpu": kl_tpu_range,
    "max": max_range,
    "percentile9999": percentile_range,
    "mse": mse_range,
    "octav": octav_range,
    "mean_minmax": mean_minmax_range,
    "aciq_gauss": aciq_gauss_range,
    "aciq_laplace": aciq_laplace_range,
}

DEFAULT = "mse"
"""The best on average over the networks of ``benchmarks/methods.py``."""

_EXTREMES = frozenset({"max", "mean_minmax", "aciq_gauss"})
_SAMPLES = frozenset({"octav", "aciq_laplace"})


def detail_of(name: str) -> Detail:
    """What a method needs to know of each tensor. Raises QdqcError for an unknown method."""
    found = method_name(name)
    if found in _EXTREMES:
        return Detail.EXTREMES
    return Detail.SAMPLES if found in _SAMPLES else Detail.HISTOGRAM


def method_name(text: str) -> str:
    """The name of a method given in any case, or as ``use_kl``. Raises QdqcError."""
    name = text.lower().removeprefix("use_")
    if name not in METHODS:
        raise QdqcError(
            f"there is no calibration method '{text}'{suggestion(text.lower(), METHODS)}",
            notes=[f"--cali_method takes {', '.join(METHODS)}"],
        )
    return name


def method_named(text: str) -> Method:
    """The method of that name. Raises QdqcError."""
    return METHODS[method_name(text)]
