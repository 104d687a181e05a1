"""How near a quantized classifier stays to its float model, with intervals over photos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Interval", "agreement", "bootstrap", "cosine", "sqnr_db", "top1"]

Floats: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float

    def text(self, digits: int = 4) -> str:
        """As ``mean [low, high]``."""
        return f"{self.mean:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def top1(logits: npt.NDArray[Any], labels: npt.ArrayLike) -> Floats:
    """Hit or miss of each sample: logits [N,C], labels [N] to 0 or 1 [N]."""
    return (logits.argmax(-1) == np.asarray(labels)).astype(np.float64)


def agreement(logits: npt.NDArray[Any], reference: npt.NDArray[Any]) -> Floats:
    """Share of a photo's views with the reference's top class: [N,V,C] twice to [N]."""
    return (logits.argmax(-1) == reference.argmax(-1)).mean(-1)


def sqnr_db(logits: npt.NDArray[Any], reference: npt.NDArray[Any]) -> Floats:
    """Signal to quantization noise in dB, ``10 log10(sum r^2 / sum (r - q)^2)``: [...,C] to [...].

    Equal logits give infinity.
    """
    exact = reference.astype(np.float64)
    noise = np.square(exact - logits).sum(-1)
    with np.errstate(divide="ignore"):
        return 10 * np.log10(np.square(exact).sum(-1) / noise)


def cosine(logits: npt.NDArray[Any], reference: npt.NDArray[Any]) -> Floats:
    """Cosine of logits and reference: [...,C] twice to [...]."""
    found, exact = logits.astype(np.float64), reference.astype(np.float64)
    norms = np.linalg.norm(found, axis=-1) * np.linalg.norm(exact, axis=-1)
    return (found * exact).sum(-1) / norms


def bootstrap(per_photo: npt.ArrayLike, draws: int = 10_000, seed: int = 0) -> Interval:
    """Mean over photos and its 95 % percentile interval over ``draws`` resamples of the photos.

    The views of a photo depend on each other, so photos are drawn, never views.
    """
    values = np.asarray(per_photo, np.float64)
    picks = np.random.default_rng(seed).integers(0, len(values), (draws, len(values)))
    low, high = np.percentile(values[picks].mean(-1), [2.5, 97.5])
    return Interval(float(values.mean()), float(low), float(high))
