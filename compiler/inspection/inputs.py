"""Do the samples fit the model? Its preprocessing is looked at, and a run that is known right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from qdqc.data.preprocess import Preprocess
from qdqc.inspection.measure import Figures
from qdqc.ir.core import Value
from qdqc.ir.graph import Module

__all__ = ["Doubt", "Spread", "Summary", "input_doubts", "spread_of"]

_PIXEL = 255.0
_LARGE = 1000.0
"""No network is trained on inputs of this size: images lie in 0..255 at most."""

_TIMES = 4.0
"""How many times wider or narrower than in the known run the values may lie."""

_SHIFT = 0.8
"""How far the mean may move, in sums of both standard deviations."""


@dataclass(frozen=True)
class Spread:
    """Least, largest, mean and standard deviation of a value's elements."""

    low: float
    high: float
    mean: float
    std: float

    def __str__(self) -> str:
        return f"{self.low:.4g} to {self.high:.4g} (mean {self.mean:.4g}, std {self.std:.4g})"


Summary: TypeAlias = Mapping[str, Spread]
"""Spreads of values by name."""


@dataclass(frozen=True)
class Doubt:
    """What is wrong with the inputs, of which value, and what to do."""

    name: str
    text: str
    advice: str


def spread_of(array: npt.NDArray[Any]) -> Spread | None:
    """The spread of an array of numbers; None where it holds none that are finite."""
    if array.dtype.kind not in "fiu" or not array.size:
        return None
    x = array.astype(np.float64)
    x = x[np.isfinite(x)]
    return Spread(*(float(v) for v in (x.min(), x.max(), x.mean(), x.std()))) if x.size else None


def input_doubts(
    figures: Sequence[Figures],
    quantized: Module,
    reference: Module,
    tested: Summary | None,
) -> list[Doubt]:
    """Doubts about the inputs, the surest first."""
    return [
        *_against_test(figures, tested or {}),
        *_stated_differently(quantized, reference),
        *_stated_oddly(reference),
    ]


def _against_test(figures: Iterable[Figures], tested: Summary) -> list[Doubt]:
    """The first value that has other statistics in the run that is known to be right."""
    for f in figures:
        known = tested.get(f.name)
        if known is None or not _differ(_spread(f), known):
            continue
        what = "input" if f.pair.node is None else "value"
        text = (
            f"{what} '{f.name}' lies in {_spread(f)} on these samples, but in {known} in the run "
            "that is known to be right: the samples are not preprocessed as the model wants it"
        )
        return [Doubt(f.name, text, _ADVICE)]
    return []


_ADVICE = (
    "compare `mean`, `scale`, `pixel_format` and `channel_format` of model_transform with the "
    "training's preprocessing (y = (x - mean) * scale on 0..255 pixels)"
)


def _spread(f: Figures) -> Spread:
    return Spread(f.low, f.high, f.mean, f.std)


def _differ(a: Spread, b: Spread) -> bool:
    """Whether two spreads are too unlike for two sets of samples of one kind."""
    if a.std > 0 and b.std > 0 and not 1 / _TIMES <= a.std / b.std <= _TIMES:
        return True
    return abs(a.mean - b.mean) > _SHIFT * (a.std + b.std)


def _stated_differently(quantized: Module, reference: Module) -> list[Doubt]:
    """Both modules take the same numbers, and state different preprocessing."""
    doubts: list[Doubt] = []
    same = [v for v in quantized.graph.inputs if (o := reference.value(v.name)) and _alike(o, v)]
    for value in same:
        ours = quantized.graph.input_attrs.get(value.name)
        theirs = reference.graph.input_attrs.get(value.name)
        if ours and theirs and ours != theirs:
            keys = [k for k in {**theirs, **ours} if ours.get(k) != theirs.get(k)]
            differences = ", ".join(f"{k} {ours.get(k)} against {theirs.get(k)}" for k in keys)
            text = (
                f"the models state different preprocessing of input '{value.name}': {differences}"
            )
            doubts.append(Doubt(value.name, text, _ADVICE))
    return doubts


def _alike(a: Value, b: Value) -> bool:
    """Inputs that became pixels or integers state what is left to do."""
    return a.tensor.expressed().elem is b.tensor.expressed().elem


def _stated_oddly(reference: Module) -> list[Doubt]:
    """Numbers that no network takes, of pixels: mean and scale stand in each other's place."""
    doubts: list[Doubt] = []
    for name, attrs in reference.graph.input_attrs.items():
        stated = Preprocess.from_attrs(attrs)
        if stated is None or not stated.is_image:
            continue
        reach = _reach(stated.means, stated.scales)
        if reach < _LARGE:
            continue
        swapped = _reach(stated.scales, stated.means) < _LARGE
        why = "; mean and scale look swapped" if swapped else ""
        mean, scale = (",".join(f"{v:g}" for v in vs) for vs in (stated.means, stated.scales))
        text = (
            f"input '{name}' is (pixel - mean) * scale with mean {mean} and scale {scale}: numbers "
            f"up to {reach:.4g}, which no network is trained on{why}"
        )
        doubts.append(Doubt(name, text, _ADVICE))
    return doubts


def _reach(mean: Sequence[float], scale: Sequence[float]) -> float:
    """The largest magnitude that pixels become."""
    pairs = zip(mean, scale, strict=False)
    return max((abs((x - m) * s) for m, s in pairs for x in (0.0, _PIXEL)), default=0.0)
