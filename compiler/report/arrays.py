"""What people see of arrays in npz files."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qdqc.data.archive import Archive
from qdqc.data.totals import Totals
from qdqc.diagnostics import joined, visible

__all__ = ["Statistics", "render_array", "render_statistics", "statistics_csv", "statistics_of"]

_IMAGE_CHANNELS = 3
_NUMBERS = "biuf"
_HEAD = ("min", "max", "mean", "mean|x|", "std", "zeros", "odd", "type", "name")


@dataclass(frozen=True)
class Statistics:
    """One line of a table of statistics: an array or a part of it, and its totals.

    ``totals`` is None for what holds no numbers.
    """

    name: str
    kind: str
    totals: Totals | None
    part: int = 0

    @property
    def count(self) -> int:
        return 0 if self.totals is None else int(self.totals.count[self.part])

    def figures(self) -> tuple[float, ...]:
        """Least, largest, mean, mean magnitude and standard deviation; empty where none is."""
        t, i = self.totals, self.part
        if t is None or not self.count:
            return ()
        return tuple(float(x[i]) for x in (t.low, t.high, t.mean, t.magnitude, t.std))


def statistics_of(archive: Archive, name: str, axis: int | None = None) -> list[Statistics]:
    """Statistics of an array, and of each index along ``axis`` where it has that axis.

    Raises QdqcError for damaged contents.
    """
    header = archive.header(name)
    if header.dtype.kind not in _NUMBERS:
        return [Statistics(name, str(header), None)]
    along = axis if axis is not None and axis < len(header.shape) else None
    whole = Totals()
    parts = Totals(1 if along is None else header.shape[along])
    place = 0
    for piece in archive.chunks(name):
        whole.see(piece)
        if along is not None:
            inner = math.prod(header.shape[along + 1 :])
            indices = np.arange(place, place + piece.size) // inner % header.shape[along]
            parts.see(piece, indices)
        place += piece.size
    rows = [Statistics(name, str(header), whole)]
    if along is not None:
        head = ":," * along
        named = ((f"{name}[{head}{i}]", i) for i in range(header.shape[along]))
        rows += [Statistics(label, "", parts, i) for label, i in named]
    return rows


def render_statistics(rows: Iterable[Statistics]) -> str:
    """A table, names last as they may be long."""
    cells = [_HEAD, *map(_cells, rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(_HEAD) - 1)]
    lines = (
        "  ".join([*(c.rjust(w) for c, w in zip(r, widths, strict=False)), r[-1]]) for r in cells
    )
    return joined(lines)


def _cells(row: Statistics) -> tuple[str, ...]:
    figures = [f"{x:.5g}" for x in row.figures()] or [""] * 5
    t = row.totals
    zeros = f"{t.zeros[row.part] / row.count:.1%}" if t is not None and row.count else ""
    odd = str(t.odd[row.part]) if t is not None and t.odd[row.part] else ""
    return (*figures, zeros, odd, row.kind, row.name)


def statistics_csv(rows: Iterable[Statistics]) -> str:
    """All figures as CSV."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["name", "type", "count", "min", "max", "mean", "mean_abs", "std", "zeros", "odd"]
    )
    for row in rows:
        figures = [f"{x:.9g}" for x in row.figures()] or [""] * 5
        t = row.totals
        ends = ["", ""] if t is None else [int(t.zeros[row.part]), int(t.odd[row.part])]
        writer.writerow([visible(row.name), row.kind, row.count, *figures, *ends])
    return out.getvalue()


def render_array(archive: Archive, name: str, count: int = 16) -> str:
    """The first ``count`` elements of an array (all below 0), and statistics.

    Arrays with 3 channels on axis 1 (or on axis 0 of three axes) have a line for each. Raises
    QdqcError.
    """
    header = archive.header(name)
    size = math.prod(header.shape)
    shown = _first(archive, name, size if count < 0 else min(count, size))
    dots = " ..." if len(shown) < size else ""
    lines = [f"{name}  {header}", f"{' '.join(map(str, shown))}{dots}"]
    if size and header.dtype.kind in _NUMBERS:
        axis = len(header.shape) - _IMAGE_CHANNELS
        image = axis in (0, 1) and header.shape[axis] == _IMAGE_CHANNELS
        whole, *channels = statistics_of(archive, name, axis if image else None)
        lines.append(_line("all", whole))
        lines += [_line(f"channel {i}", c) for i, c in enumerate(channels)]
    return joined(lines)


def _first(archive: Archive, name: str, count: int) -> Sequence[Any]:
    shown: list[Any] = []
    for piece in archive.chunks(name):
        shown += piece[: count - len(shown)].tolist()
        if len(shown) >= count:
            break
    return shown


def _line(label: str, statistics: Statistics) -> str:
    odd = 0 if statistics.totals is None else int(statistics.totals.odd[statistics.part])
    infinite = f"  not finite {odd}" if odd else ""
    if not statistics.count:
        return f"{label}:{infinite}"
    low, high, mean, magnitude, std = statistics.figures()
    return (
        f"{label}: min {low:.6g}  max {high:.6g}  mean {mean:.6g}  "
        f"mean|x| {magnitude:.6g}  std {std:.6g}{infinite}"
    )
