"""Plots of a search: loss by depth, score against float layers, the front of score and time."""

from __future__ import annotations

import io
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qdqc.diagnostics import QdqcError, visible
from qdqc.report.extra import library
from qdqc.search.strategies.mixes import Mix
from qdqc.search.strategies.pareto import Point

__all__ = ["SearchPlot", "check_plot", "draw"]

_SUFFIXES = (".png", ".svg")
_NAMED = 10
"""Worst layers that are named beside the bars."""
_LONGEST = 44
_DECADES = 1e-5
"""Losses below that part of the largest one stand on a linear foot of the axis."""
_INTEGER, _FLOAT, _GOAL = "#0072b2", "#d55e00", "#777777"


@dataclass(frozen=True)
class SearchPlot:
    """What a search found, for the eye.

    ``losses`` stand in graph order, ``chosen`` is the model that is written. ``points`` of a
    front may be missing, and so may the ``limit`` on its seconds.
    """

    title: str
    losses: Mapping[str, float]
    measure: str
    verified: Collection[Mix]
    chosen: Mix
    goal: float
    points: Sequence[Point] = ()
    limit: float | None = None


def check_plot(path: str) -> None:
    """Raises QdqcError for a name with another ending, and where matplotlib is missing."""
    if Path(path).suffix.lower() not in _SUFFIXES:
        note = f"end its name in {' or '.join(_SUFFIXES)}"
        raise QdqcError(f"'{path}' does not say what kind of picture it is", notes=[note])
    _library("matplotlib.figure")


def draw(search: SearchPlot, path: str | Path) -> bytes:
    """The picture in the format that the path's ending says. The same data give the same bytes.

    Raises QdqcError as ``check_plot`` does.
    """
    check_plot(str(path))
    panels = [_draw_losses, _draw_sizes, _draw_front][: 3 if search.points else 2]
    figure = _library("matplotlib.figure").Figure((11, 3.6 * len(panels)), layout="constrained")
    figure.suptitle(_shown(search.title), parse_math=False)
    for axes, panel in zip(figure.subplots(len(panels)), panels, strict=True):
        panel(axes, search)
    kind = Path(path).suffix[1:].lower()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    style = {"svg.fonttype": "none", "svg.hashsalt": "qdqc"}
    out = io.BytesIO()
    with _library("matplotlib").rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(out, format=kind, dpi=120, metadata=metadata)
    return out.getvalue()


def _draw_losses(axes: Any, search: SearchPlot) -> None:
    """A bar for each layer in graph order; the worst ones bear their place in the list beside."""
    names, losses = list(search.losses), list(search.losses.values())
    colours = [_FLOAT if name in search.chosen.floats else _INTEGER for name in names]
    for bar, name in zip(axes.bar(range(len(names)), losses, color=colours), names, strict=True):
        bar.set_gid(f"loss {_shown(name, len(name))}")
    largest = max((abs(loss) for loss in losses), default=0.0)
    if largest > 0:
        sizes = [abs(loss) for loss in losses if loss]
        axes.set_yscale("symlog", linthresh=max(min(sizes), _DECADES * largest))
    axes.set(xlabel="layer, in the order of the network", ylabel=search.measure)
    worst = sorted(range(len(names)), key=lambda n: -losses[n])[:_NAMED]
    for place, number in enumerate(worst, 1):
        axes.annotate(str(place), (number, losses[number]), ha="center", va="bottom", fontsize=7)
    listed = [
        f"{place:>2}  {losses[n]:.2e}  {_shown(names[n])}" for place, n in enumerate(worst, 1)
    ]
    legend = "\n".join([*listed, "", "orange: stays float"])
    style = {"fontsize": 7, "family": "monospace", "va": "top", "parse_math": False}
    axes.text(1.01, 1.0, legend, transform=axes.transAxes, **style)


def _draw_sizes(axes: Any, search: SearchPlot) -> None:
    """Each verified model by the number of its float layers, and the best of no more."""
    models = sorted(search.verified, key=lambda m: (len(m.floats), m.score))
    sizes, scores = [len(m.floats) for m in models], [m.score for m in models]
    axes.plot(sizes, scores, "o", color=_INTEGER, markersize=3, label="verified", gid="verified")
    best = [max(scores[: n + 1]) for n in range(len(scores))]
    axes.step(sizes, best, where="post", color=_INTEGER, linewidth=1, label="best so far")
    _mark(axes, search, len(search.chosen.floats), search.chosen.score)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel="float layers", ylabel="score")
    axes.legend(loc="lower right", fontsize=7)


def _draw_front(axes: Any, search: SearchPlot) -> None:
    """Measured times filled, predicted ones hollow; the number of float layers beside."""
    for point in search.points:
        ends = [1000 * point.predicted, 1000 * point.seconds]
        axes.plot(ends, [point.score] * 2, "-", color=_GOAL, linewidth=0.8)
        axes.annotate(str(len(point.floats)), (ends[1], point.score), fontsize=7, va="bottom")
    scores = [p.score for p in search.points]
    measured = [1000 * p.seconds for p in search.points]
    predicted = [1000 * p.predicted for p in search.points]
    axes.plot(predicted, scores, "o", mfc="none", color=_INTEGER, label="predicted")
    axes.plot(measured, scores, "o", color=_INTEGER, label="measured", gid="measured")
    chosen = [p for p in search.points if p.floats == search.chosen.floats]
    if search.limit is not None:
        axes.axvline(1000 * search.limit, color=_GOAL, linestyle=":", label="time limit")
    for point in chosen:
        _mark(axes, search, 1000 * point.seconds, point.score)
    axes.set(xlabel="milliseconds on one thread; numbers are float layers", ylabel="score")
    axes.legend(loc="lower right", fontsize=7)


def _mark(axes: Any, search: SearchPlot, place: float, score: float) -> None:
    """The model that is written, and the goal."""
    axes.axhline(search.goal, color=_GOAL, linestyle="--", linewidth=1, label="goal")
    style = {"mfc": "none", "color": _FLOAT, "markersize": 10}
    axes.plot([place], [score], "s", label="written", gid="written", **style)


def _shown(name: str, longest: int = _LONGEST) -> str:
    """A name on one line, with its end when it is too long: nothing in it is a command."""
    plain = visible(name)
    return plain if len(plain) <= longest else f"…{plain[1 - longest :]}"


def _library(name: str) -> Any:
    return library(name, "`plot`", "plot", ", or leave it out")
