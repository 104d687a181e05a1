"""The numbers and texts of the page, as plain data for its scripts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from qdqc.inspection.causes import Cause
from qdqc.inspection.difference import Difference
from qdqc.inspection.folding import Group, folded
from qdqc.inspection.measure import Figures, Measured
from qdqc.inspection.sketch import Sketches
from qdqc.inspection.steps import Replay
from qdqc.ir.core import Node, Value
from qdqc.ir.graph import Module
from qdqc.ir.view import reads
from qdqc.runtime.comparison.compare import decibels

__all__ = ["COLUMNS", "COMPARED", "Inspection", "payload"]

COLUMNS = (
    "name",
    "op",
    "precision",
    "low",
    "high",
    "scale",
    "from",
    "to",
    "outside",
    "cos",
    "sqnr",
    "own",
    "float_us",
    "int8_us",
    "runs",
    "reason",
)
"""What a row of the table holds, in this order; null where nothing is known."""

COMPARED = ("the float model", "the quantized one")

_BINS = 48
_CHANNELS = 128
"""Channels of a weight that are drawn; of more, the ranges of neighbours are joined."""

_POINTS = 1 << 19
_MOST_POINTS = 300
_DIGITS = 4
_INFINITE = 200.0
"""What stands for the SQNR of an exact value."""


@dataclass
class Inspection:
    """All that a page shows.

    ``runs`` gives by name whether a node runs in integers, and why not; times are seconds by
    name. ``facts`` are pairs of a label and a text for the summary. ``searched`` holds what
    reports of searches had, as ``read_searches`` gives it. ``difference`` is that of the two
    modules that ``compared`` names.
    """

    reference: Module
    measured: Measured
    causes: Sequence[Cause]
    sketches: Sketches
    replay: Replay = field(default_factory=Replay)
    runs: Mapping[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    times: tuple[Mapping[str, float], Mapping[str, float]] = ({}, {})
    facts: Sequence[tuple[str, str]] = ()
    pipeline: Sequence[str] = ()
    searched: Mapping[str, Any] = field(default_factory=dict[str, Any])
    difference: Difference | None = None
    compared: tuple[str, str] = COMPARED


def payload(inspection: Inspection) -> dict[str, Any]:
    """The data of the page; its size grows with the number of nodes by about 2 KB each."""
    graph = inspection.reference.graph
    values = [*graph.inputs, *(n.present_results[0] for n in graph.nodes() if n.present_results)]
    place = {v.name: i for i, v in enumerate(values)}
    figures = {f.name: f for f in inspection.measured.figures}
    points = min(_MOST_POINTS, max(24, _POINTS // max(1, len(values) * 4)))
    first = inspection.measured.comparison.first_failure
    return {
        "columns": COLUMNS,
        "rows": [_row(v, figures.get(v.name), inspection) for v in values],
        "edges": list(_edges(graph.nodes(), place)),
        "tree": _tree(folded([v.name for v in values])),
        "detail": [_detail(v, figures.get(v.name), inspection, points) for v in values],
        "facts": inspection.facts,
        "outputs": [
            [r.name, _short(r.cos, 6), _finite(r.sqnr), inspection.measured.agreement.get(r.name)]
            for r in inspection.measured.outputs.rows
        ],
        "causes": [[c.kind, c.name, c.text, c.advice] for c in inspection.causes],
        "first": None if first is None else first.name,
        "tolerance": inspection.measured.comparison.tolerance,
        "pipeline": inspection.pipeline,
        "refused": inspection.replay.refused,
        "searched": inspection.searched,
        "difference": _difference(inspection),
    }


def _difference(inspection: Inspection) -> dict[str, Any] | None:
    if inspection.difference is None:
        return None
    changes = [
        [c.sign, c.op, c.name, c.note, [[d.aspect, d.before, d.after] for d in c.details]]
        for c in inspection.difference.changes
    ]
    before, after = inspection.compared
    nodes = inspection.difference.nodes
    return {"before": before, "after": after, "nodes": nodes, "changes": changes}


def _row(value: Value, f: Figures | None, inspection: Inspection) -> list[Any]:
    op = "input" if value.producer is None else value.producer.op.name
    seconds = [times.get(value.name) for times in inspection.times]
    runs, reason = inspection.runs.get(value.name, ("", ""))
    micro = [None if s is None else _short(s * 1e6) for s in seconds]
    if f is None:
        return [value.name, op, "", *[None] * 9, *micro, runs, reason]
    low, high = f.covered or (math.nan, math.nan)
    quant = f.pair.quant
    scale = float(quant.scale) if quant is not None and quant.scale.size == 1 else math.nan
    numbers = (low, high, scale, f.low, f.high, f.outside)
    cos = None if f.similarity is None else _short(f.similarity.cos, 6)
    errors = [_finite(f.sqnr), _finite(decibels(f.local))]
    return [value.name, op, f.precision, *map(_short, numbers), cos, *errors, *micro, runs, reason]


def _edges(nodes: Iterable[Node[Any]], place: Mapping[str, int]) -> Iterable[tuple[int, int]]:
    """From the row of what is read to the row of the reader."""
    for node in nodes:
        at = place.get(node.name)
        for value in reads(node) if at is not None else ():
            made = value if value.producer is None else value.producer.present_results[0]
            source = place.get(made.name)
            if source is not None and at is not None:
                yield source, at


def _tree(group: Group) -> dict[str, Any]:
    members = [m if isinstance(m, int) else _tree(m) for m in group.members]
    return {"label": group.label, "members": members}


def _detail(
    value: Value, f: Figures | None, inspection: Inspection, points: int
) -> dict[str, Any] | None:
    out: dict[str, Any] = {}
    if value.name in inspection.sketches.by_name:
        out |= _pictures(value.name, inspection.sketches, points)
    if f is not None and f.weights is not None:
        w = f.weights
        out["weights"] = [_joined(w.low, min), _joined(w.high, max), _joined(w.reach, max)]
    steps = _steps(value, inspection.replay)
    if steps:
        out["steps"] = steps
    return out or None


def _pictures(name: str, sketches: Sketches, points: int) -> dict[str, Any]:
    exact, quantized = (a.astype(np.float64) for a in sketches.by_name[name].elements())
    if not exact.size:
        return {}
    ends = _ends(exact, quantized)
    counts = [np.histogram(a, bins=_BINS, range=ends)[0].tolist() for a in (exact, quantized)]
    chosen = np.linspace(0, exact.size - 1, min(points, exact.size)).astype(np.intp)
    thresholds = sketches.thresholds(name)
    return {
        "histogram": [_short(ends[0]), _short(ends[1]), *counts],
        "scatter": [_numbers(exact[chosen]), _numbers(quantized[chosen])],
        "thresholds": {n: [_short(a), _short(b)] for n, (a, b) in thresholds.items()},
    }


def _ends(exact: npt.NDArray[Any], quantized: npt.NDArray[Any]) -> tuple[float, float]:
    """Where the histogram begins and ends; wide enough to be cut into bins."""
    low, high = float(min(exact.min(), quantized.min())), float(max(exact.max(), quantized.max()))
    least = max(1e-3 * max(abs(low), abs(high)), 1e-30)
    return (low, high) if high - low > least else (low - least, high + least)


def _joined(values: npt.NDArray[Any], how: Any) -> list[float | None]:
    """Values of channels; neighbours joined where they are many."""
    if values.size <= _CHANNELS:
        return _numbers(values)
    return [_short(float(how(part))) for part in np.array_split(values, _CHANNELS)]


def _steps(value: Value, replay: Replay) -> list[list[Any]]:
    node = value.producer
    if node is None:
        return []
    seen: dict[tuple[str, tuple[str, ...]], None] = {}
    for place in node.loc.names:
        seen |= dict.fromkeys((s.pass_name, s.lines) for s in replay.steps.get(place, ()))
    return [[name, list(lines)] for name, lines in seen]


def _numbers(values: npt.NDArray[Any]) -> list[float | None]:
    return [_short(float(v)) for v in values]


def _short(value: float, digits: int = _DIGITS) -> float | None:
    """A number with few digits; None for what JSON has not."""
    if not math.isfinite(value):
        return None
    short = float(f"{value:.{digits}g}")
    return int(short) if short == int(short) else short


def _finite(value: float) -> float | None:
    """SQNR in dB: exact values have a number of their own, so that they sort last."""
    return _INFINITE if value == math.inf else _short(value)
