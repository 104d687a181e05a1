"""What each rounding adds to the outputs, so that mixed models can be predicted without a run.

To first order, what roundings do to the outputs adds up: a mixed model deviates by the sum of
what its rounded values and its integer weights do, each alone in the float model. Which they
are, placement says. (Losses do not add up; the deviations behind them do, and may cancel.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from qdqc.ir.types import Range
from qdqc.search.trials.objective import Outputs
from qdqc.search.trials.trials import Trials

__all__ = ["Parts", "samples_within"]

LIMIT = 256 << 20
"""Bytes of deviations that are held; samples are left out until they fit."""

Vector = npt.NDArray[np.float32]


class Parts:
    """The deviation of each rounded value and of each integer weight, on a few samples.

    ``ranges`` are the planned ones by value. Raises QdqcError where onnxruntime refuses a piece.
    """

    def __init__(self, trials: Trials, ranges: Mapping[str, Range]) -> None:
        self._trials = trials
        self._layers = trials.layers
        self._ranges = ranges
        self._shapes = [{n: a.shape for n, a in sample.items()} for sample in trials.exact]
        self._exact = _flat(trials.exact)
        self.ideal = trials.ideal
        self._place: dict[str, int] = {}
        self._rows: list[Vector] = []

    def measure(
        self, progress: Callable[[int, int, str], object] = lambda done, total, note: None
    ) -> None:
        """Run the roundings and the weights of all layers, each alone."""
        every = self._layers.every
        for number, layer in enumerate(every, 1):
            quants = self._layers.own_quants(layer, self._ranges)
            for kind, outputs in self._trials.part_outputs(layer, quants, self._ranges).items():
                self._place[f"{kind} {layer.name}"] = len(self._rows)
                self._rows.append(_flat(outputs) - self._exact)
            progress(number, len(every), "")

    def score(self, floats: Collection[str]) -> float:
        """The predicted score of the model in which these nodes stay float."""
        return self._trials.objective.score(self._outputs(frozenset(floats)), self._trials.exact)

    @cached_property
    def _matrix(self) -> Vector:
        return np.stack(self._rows) if self._rows else np.zeros((0, self._exact.size), np.float32)

    def deviation(self, floats: Collection[str]) -> Vector:
        """The predicted deviation of all compared values, sample by sample, flat."""
        present = np.zeros(len(self._rows), np.float32)
        for part in self._layers.parts_with(frozenset(floats)):
            if part in self._place:
                present[self._place[part]] = 1
        return present @ self._matrix

    def _outputs(self, floats: frozenset[str]) -> list[Outputs]:
        whole = self._exact + self.deviation(floats)
        outputs: list[Outputs] = []
        place = 0
        for shapes in self._shapes:
            sample: dict[str, npt.NDArray[Any]] = {}
            for name, shape in shapes.items():
                size = math.prod(shape)
                sample[name] = whole[place : place + size].reshape(shape)
                place += size
            outputs.append(sample)
        return outputs


def samples_within(trials: Trials, wanted: int) -> int:
    """How many samples' deviations fit into the limit: as many as wanted, 1 at least."""
    size = sum(a.nbytes for a in trials.exact[0].values())
    return max(1, min(wanted, LIMIT // max(1, 2 * len(trials.layers.every) * size)))


def _flat(outputs: Sequence[Outputs]) -> Vector:
    arrays = [a.astype(np.float32).ravel() for sample in outputs for a in sample.values()]
    return np.concatenate(arrays)
