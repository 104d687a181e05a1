"""How near a model is to itself: what its own rounding makes of its values.

Two orders of the same sums differ in their last digits, and a net can make much of that. A check
that holds two such models to each other can't ask for more than either gives of itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from qdqc.runtime.comparison.compare import Comparison, Level, Similarity
from qdqc.runtime.comparison.pooled import similarity
from qdqc.runtime.sessions.session import Feeds
from qdqc.runtime.sessions.source_model import Run, Source, SourceError

__all__ = ["Steadiness", "allowed", "nudged", "steadiness_of"]

_ROOM = 20.0
"""Decibels that a difference may be above the model's own: ten times as large."""

_STEPS = 2
"""Units in the last place by which inputs are moved."""

_MOST_SAMPLES = 2


@dataclass(frozen=True)
class Steadiness:
    """The worst agreement of each value of a model with itself, by name.

    The model ran under another level of optimisation, and on inputs that differ in their last
    digits.
    """

    rows: Mapping[str, Similarity]

    def decibels(self, names: Iterable[str]) -> float:
        """The least SQNR among these values; infinite where all are always the same."""
        return min((self.rows[n].sqnr for n in names if n in self.rows), default=math.inf)

    def shaky(self, names: Iterable[str]) -> list[str]:
        """Those of the values of which the model gives too little of itself to be held to."""
        return [n for n in names if n in self.rows and not self.rows[n].passed]


def steadiness_of(
    source: Source,
    run: Run,
    samples: Iterable[Feeds],
    tolerance: tuple[float, float],
) -> Steadiness:
    """Run the source otherwise on a few samples; ``run`` gives its values without optimisations."""
    rows: dict[str, Similarity] = {}
    others: list[Run] = [lambda feeds: run(nudged(feeds))]
    with contextlib.suppress(SourceError):  # what optimisations refuse runs without them
        others.append(source.open(optimise="all"))
    for _, feeds in zip(range(_MOST_SAMPLES), samples, strict=False):
        base = run(feeds)
        for other in others:
            try:
                values = other(feeds)
            except SourceError:
                continue
            for name in values.keys() & base.keys():
                row = similarity(name, values[name], base[name], tolerance)
                rows[name] = min(row, rows.get(name, row), key=_goodness)
    return Steadiness(rows)


def _goodness(row: Similarity) -> tuple[bool, float]:
    return row.level is not Level.NOT_MATCH, row.sqnr


def nudged(feeds: Feeds, seed: int = 0) -> dict[str, Any]:
    """The same inputs with each float moved by some units in its last place, up or down."""
    rng = np.random.default_rng(seed)
    return {name: _nudged(value, rng) for name, value in feeds.items()}


def _nudged(value: Any, rng: np.random.Generator) -> Any:
    if isinstance(value, list):
        return [_nudged(part, rng) for part in value]
    if value is None or not (value.dtype.kind == "f" or value.dtype == ml_dtypes.bfloat16):
        return value
    step = float(ml_dtypes.finfo(value.dtype).eps) * _STEPS
    signs = rng.integers(0, 2, value.shape) * 2 - 1
    with np.errstate(over="ignore", invalid="ignore"):
        return (value.astype(np.float64) * (1 + step * signs)).astype(value.dtype)


def allowed(comparison: Comparison, steadiness: Steadiness) -> Comparison:
    """The comparison with those values let through that the source does not hold to itself.

    Where a value fails, it passes if the source's own runs differ in shape or kind as well, or
    if its error is at most ten times that between them.
    """
    rows = [_allowed(row, steadiness.rows.get(row.name)) for row in comparison.rows]
    return Comparison(tuple(rows), comparison.tolerance)


def _allowed(row: Similarity, own: Similarity | None) -> Similarity:
    if row.passed or own is None:
        return row
    within = row.level is Level.NOT_SIMILAR and row.sqnr >= own.sqnr - _ROOM
    if within or own.level is Level.NOT_MATCH:
        return dataclasses.replace(row, level=Level.SIMILAR)
    return row
