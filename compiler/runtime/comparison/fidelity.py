"""How near the outputs of one model are to another's, over samples."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Protocol

import numpy.typing as npt

from qdqc.runtime.comparison.compare import decibels
from qdqc.runtime.comparison.pooled import Pool
from qdqc.runtime.sessions.session import Feeds, Runner

__all__ = ["Fidelity", "Kept", "fidelity"]


@dataclass(frozen=True)
class Fidelity:
    """How near outputs are to the float model's, of all samples together.

    ``cos`` is the mean likeness of the outputs, ``sqnr`` is that of their mean noise over signal,
    in dB.
    """

    cos: float
    sqnr: float


class Kept(Protocol):
    """What is left of an output's numbers when padding is left out."""

    def __call__(
        self, name: str, array: npt.NDArray[Any], sample: dict[str, npt.NDArray[Any]]
    ) -> npt.NDArray[Any]: ...


def fidelity(
    quantized: Runner,
    samples: Iterable[tuple[Feeds, Mapping[str, npt.NDArray[Any]]]],
    names: Sequence[str],
    kept: Kept | None = None,
) -> Fidelity:
    """Run a model on samples, each with the reference's values, and compare those named."""
    pools: dict[str, Pool] = {}
    for feeds, expected in samples:
        outputs = quantized.run(feeds)
        for name in names:
            pair = outputs[name], expected[name]
            if kept is not None:
                pair = kept(name, pair[0], dict(feeds)), kept(name, pair[1], dict(feeds))
            pools.setdefault(name, Pool()).see(*pair)
    if not pools:
        return Fidelity(1.0, math.inf)
    noise = fmean(pool.noise_to_signal() for pool in pools.values())
    return Fidelity(fmean(pool.likeness() for pool in pools.values()), decibels(noise))
