"""How near the outputs of one model are to another's, over samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from qdqc.runtime.comparison.compare import cosine, sqnr
from qdqc.runtime.sessions.session import Feeds, Runner

__all__ = ["Fidelity", "Kept", "fidelity"]


@dataclass(frozen=True)
class Fidelity:
    """How near outputs are to the float model's: means over samples and outputs, SQNR in dB."""

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
    kept: Kept | None = None,
) -> Fidelity:
    """Run a model on samples, each with the reference's outputs, and compare the float ones."""
    cos: list[float] = []
    noise: list[float] = []
    for feeds, expected in samples:
        outputs = quantized.run(feeds)
        for name, exact in expected.items():
            if exact.dtype.kind != "f":
                continue
            pair = outputs[name], exact
            if kept is not None:
                pair = kept(name, pair[0], dict(feeds)), kept(name, pair[1], dict(feeds))
            cos.append(cosine(*pair))
            noise.append(sqnr(*pair))
    return Fidelity(float(np.mean(cos)), float(np.mean(noise)))
