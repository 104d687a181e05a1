"""Ranges chosen by the error that they make in the ops that read a value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from qdqc.calibration.table import Table
from qdqc.ir.graph import Module
from qdqc.ir.types import Range
from qdqc.runtime.sessions.session import Feeds
from qdqc.search.strategies.reader_errors import (
    BUDGET,
    Errors,
    local_errors,
    quantized_reads,
    reads_with_values,
)

__all__ = ["STEPS", "best_of", "tuned"]

STEPS = 21
"""Steps from a threshold to the largest magnitude that tuning looks at."""

_Choice: TypeAlias = Callable[[Errors], int]
_Progress: TypeAlias = Callable[[int, int], None]


def tuned(
    module: Module,
    table: Table,
    samples: Sequence[Feeds],
    *,
    target: str = "ort-cpu",
    budget: int = BUDGET,
    progress: _Progress | None = None,
) -> Table:
    """The table with ranges widened where that lessens the error of the ops that read a value.

    Candidates are ``end + i (observed end - end) / 21``, i = 0 .. 21, both ends by the same i,
    and the threshold likewise, by itself. Each reader takes the best of them; where readers
    disagree, the widest is taken. (TPU-MLIR's tuner, for one threshold.) Raises QdqcError.
    """
    candidates = {
        n: _steps(r, *table.observed.get(n, (r.min, r.max))) for n, r in table.rows.items()
    }

    def widest(errors: Errors) -> int:
        return int(errors.argmin(axis=1).max())

    return _chosen(module, table, candidates, widest, samples, target, budget, progress)


def best_of(
    module: Module,
    tables: Mapping[str, Table],
    samples: Sequence[Feeds],
    *,
    target: str = "ort-cpu",
    budget: int = BUDGET,
    progress: _Progress | None = None,
) -> Table:
    """For each value the range of the method that makes the least error where it is read.

    ``tables`` are those of several methods, by name; the first serves values that are not
    quantized, and wins a tie. Errors of several readers are added. Raises QdqcError.
    """
    first = next(iter(tables.values()))
    candidates = {n: [t.rows[n] for t in tables.values()] for n in first.rows}

    def least(errors: Errors) -> int:
        return int(errors.sum(axis=0).argmin())

    chosen = _chosen(module, first, candidates, least, samples, target, budget, progress)
    header = {**chosen.header, "method": "best_of", "methods": ", ".join(tables)}
    return replace(chosen, header=header)


def _steps(row: Range, low: float, high: float) -> list[Range]:
    share = np.arange(STEPS + 1) / STEPS
    lows = row.min + share * min(0.0, low - row.min)
    highs = row.max + share * max(0.0, high - row.max)
    widest = max(row.threshold, -low, high)
    thresholds = row.threshold + share * (widest - row.threshold)
    return [
        Range(*ends)
        for ends in zip(lows.tolist(), highs.tolist(), thresholds.tolist(), strict=True)
    ]


def _chosen(
    module: Module,
    table: Table,
    candidates: Mapping[str, Sequence[Range]],
    choice: _Choice,
    samples: Sequence[Feeds],
    target: str,
    budget: int,
    progress: _Progress | None,
) -> Table:
    """The table with ends and threshold of each quantized value chosen, each by itself."""
    reads = quantized_reads(module, table, target)
    rows = dict(table.rows)
    for done, (read, values) in enumerate(reads_with_values(module, reads, samples, budget), 1):
        name = read.value.name
        ranges = candidates[name]
        ends, width = (
            ranges[choice(local_errors(read, ranges, values, target=target, symmetric=s))]
            for s in (False, True)
        )
        rows[name] = Range(ends.min, ends.max, width.threshold)
        if progress is not None:
            progress(done, len(reads))
    return replace(table, rows=rows, places={})
