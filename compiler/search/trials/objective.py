"""What a search strives for: likeness to the float model, or a metric of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from qdqc.diagnostics import QdqcError
from qdqc.runtime.comparison.pooled import Pool
from qdqc.user_files import brief, place_of

__all__ = ["KINDS", "Likeness", "Metric", "Objective", "Outputs"]

Outputs: TypeAlias = Mapping[str, npt.NDArray[Any]]
"""The compared values of one sample."""

PostProcess: TypeAlias = Callable[[Outputs], Outputs]

_WORST = -1e9
"""What outputs score that are not finite, or not zero, where the float model's are."""


class Objective(Protocol):
    """Scores models by the values named ``names``; more is better."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def score(self, quantized: Sequence[Outputs], exact: Sequence[Outputs]) -> float:
        """The score of a model, by its values and those of the float model on all samples."""
        ...

    def ideal(self, exact: Sequence[Outputs]) -> float:
        """The score of the float model, from which losses are counted."""
        ...

    def part(self, places: Sequence[int]) -> Objective:
        """The objective on the samples of these places alone."""
        ...


def _near(pool: Pool) -> float:
    """1 - noise / signal; what is taken from 1 is TPU-MLIR's snr."""
    return max(_WORST, 1.0 - pool.noise_to_signal())


KINDS: Mapping[str, Callable[[Pool], float]] = {"cos": Pool.likeness, "snr": _near}


@dataclass(frozen=True)
class Likeness:
    """The mean likeness over the values, each of all samples together: 1 where nothing is lost.

    ``weights`` says how much each compared value counts, by name; they sum to 1. ``kind`` is a
    name of ``KINDS``. ``post_process`` turns the values of a sample into others, which count
    alike.
    """

    weights: Mapping[str, float]
    kind: str = "cos"
    post_process: PostProcess | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.weights)

    def score(self, quantized: Sequence[Outputs], exact: Sequence[Outputs]) -> float:
        """The mean of the likeness of each value."""
        pools: dict[str, Pool] = {}
        for ours, theirs in map(self._compared, quantized, exact):
            for name in theirs:
                pools.setdefault(name, Pool()).see(ours[name], theirs[name])
        weights = self.weights
        if self.post_process is not None:
            weights = dict.fromkeys(pools, 1 / len(pools))
        near = KINDS[self.kind]
        return sum(w * near(pools[name]) for name, w in weights.items())

    def ideal(self, exact: Sequence[Outputs]) -> float:
        return 1.0

    def part(self, places: Sequence[int]) -> Likeness:
        return self

    def _compared(self, outputs: Outputs, exact: Outputs) -> tuple[Outputs, Outputs]:
        """What is compared of a sample."""
        if self.post_process is not None:
            process = self.post_process
            return _comparable(process(outputs), process(exact), place_of(process))
        return outputs, {name: exact[name] for name in self.weights}


def _comparable(given: Outputs, exact: Outputs, file: str | None) -> tuple[Outputs, Outputs]:
    """What a post-processing made of a model's values and of the float model's.

    Raises QdqcError where there is nothing to compare number by number.
    """
    shapes = [{n: np.shape(a) for n, a in outputs.items()} for outputs in (given, exact)]
    note = "compare what comes before anything that depends on the values: scores, not boxes"
    if shapes[0] != shapes[1]:
        message = f"{shapes[0]} of INT8 beside {shapes[1]} of float"
        message = f"the post-processing gives other shapes: {message}"
        raise QdqcError(message, file=file, notes=[note])
    if not any(np.size(a) for a in exact.values()):
        raise QdqcError("the post-processing gives nothing to compare", file=file, notes=[note])
    texts = [n for n, a in exact.items() if np.asarray(a).dtype.kind not in "biuf"]
    if texts:
        message = f"the post-processing gives no numbers as '{texts[0]}'"
        raise QdqcError(message, file=file, notes=[note])
    return given, exact


def _joined(arrays: Sequence[npt.NDArray[Any]], name: str) -> npt.NDArray[Any]:
    """The values of all samples behind one another. Raises QdqcError where they do not fit."""
    try:
        return np.concatenate(arrays)
    except ValueError as error:
        shapes = sorted({np.shape(a) for a in arrays})
        raise QdqcError(
            f"a metric gets '{name}' of all samples in one array, but its shapes differ: {shapes}",
            notes=["give it a common shape: `post_process`, or samples of one length"],
        ) from error


@dataclass(frozen=True)
class Metric:
    """The user's own metric: ``function(outputs, labels)`` over all samples, more is better.

    ``outputs`` has the values of all samples by name, one behind the other on the first axis;
    ``labels`` are those of the same samples, or None.
    """

    names: tuple[str, ...]
    function: Callable[[Outputs, Any], Any]
    labels: Sequence[Any] | npt.NDArray[Any] | None = None
    post_process: PostProcess | None = None

    def score(self, quantized: Sequence[Outputs], exact: Sequence[Outputs]) -> float:
        """What the function gives. Raises QdqcError where that is no finite number."""
        if self.post_process is not None:
            quantized = [self.post_process(sample) for sample in quantized]
        joined = {n: _joined([sample[n] for sample in quantized], n) for n in quantized[0]}
        value = self.function(joined, self.labels)
        try:
            number = float(value)
        except Exception:  # it is the user's object
            number = float("nan")
        if not np.isfinite(number):
            raise QdqcError(
                f"the metric gave {brief(value)}, which is no finite number",
                file=place_of(self.function),
                notes=["def metric(outputs, labels) returns one number, and more is better"],
            )
        return number

    def ideal(self, exact: Sequence[Outputs]) -> float:
        return self.score(exact, exact)

    def part(self, places: Sequence[int]) -> Metric:
        if self.labels is None:
            return self
        return replace(self, labels=np.asarray(self.labels)[list(places)])
