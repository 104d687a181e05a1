"""Where two arrays lie apart: a histogram of the difference, and the elements that lie farthest."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from qdqc.data.archive import Archive
from qdqc.diagnostics import QdqcError, joined
from qdqc.runtime.comparison.compare_files import pieces, similarities

__all__ = ["Apart", "apart", "render_apart", "worst_parts"]

Floats: TypeAlias = npt.NDArray[np.float64]

_BINS = 15
_BAR = 40
_PARTS = 8
_BLOCKS = " ▏▎▍▌▋▊▉█"


@dataclass
class Apart:
    """The difference of two arrays of one name and shape.

    ``reach`` is the largest finite difference, ``counts`` are those of equal bins from minus to
    plus it; ``places``, ``values`` and ``wanted`` are those of the elements farthest apart.
    ``odd`` counts elements whose difference is not a number.
    """

    name: str
    shape: tuple[int, ...]
    reach: float = 0.0
    rms: float = 0.0
    odd: int = 0
    counts: list[int] = field(default_factory=list[int])
    places: list[int] = field(default_factory=list[int])
    values: list[float] = field(default_factory=list[float])
    wanted: list[float] = field(default_factory=list[float])


def apart(target: Archive, reference: Archive, name: str, count: int = 10) -> Apart:
    """Read both arrays twice, a piece at a time. Raises QdqcError where they do not fit."""
    headers = [archive.header(name) for archive in (target, reference)]
    if headers[0].shape != headers[1].shape or any(h.dtype.kind not in "biuf" for h in headers):
        raise QdqcError(
            f"'{name}' is {headers[0]} in one file and {headers[1]} in the other",
            file=str(target.path),
            notes=["give an array of numbers that has the same shape in both"],
        )
    out = Apart(name, headers[0].shape)
    _see_largest(out, target, reference, count)
    counts = np.zeros(_BINS, np.int64)
    ends = (-out.reach, out.reach) if out.reach else (-1.0, 1.0)
    for _, value, exact in pieces(name, target, reference):
        difference = _difference(value, exact)
        counts += np.histogram(difference[np.isfinite(difference)], _BINS, ends)[0]
    out.counts = counts.tolist()
    return out


def _difference(value: npt.NDArray[Any], exact: npt.NDArray[Any]) -> Floats:
    with np.errstate(invalid="ignore"):
        return value.astype(np.float64) - exact.astype(np.float64)


def _see_largest(out: Apart, target: Archive, reference: Archive, count: int) -> None:
    """Fill in all but the counts."""
    squares, seen = 0.0, 0
    rows: npt.NDArray[Any] = np.zeros((0, 4))
    for place, value, exact in pieces(out.name, target, reference):
        difference = _difference(value, exact)
        finite = np.isfinite(difference)
        size = np.where(finite, np.abs(difference), np.inf)
        out.odd += int(np.count_nonzero(~finite))
        squares += float(np.sum(difference[finite] ** 2))
        seen += int(np.count_nonzero(finite))
        out.reach = max(out.reach, float(size[finite].max(initial=0.0)))
        top = np.argsort(-size, kind="stable")[:count]
        fresh = np.stack([size[top], top + place, value[top], exact[top]], axis=1)
        rows = np.concatenate([rows, fresh])
        rows = rows[np.argsort(rows[:, 0] * -1, kind="stable")][:count]
    rows = rows[np.flatnonzero(rows[:, 0])]
    out.rms = math.sqrt(squares / seen) if seen else 0.0
    out.places = rows[:, 1].astype(int).tolist()
    out.values, out.wanted = rows[:, 2].tolist(), rows[:, 3].tolist()


def render_apart(deviations: Apart) -> str:
    """A histogram in bars, and a table of the elements that lie farthest apart."""
    size = math.prod(deviations.shape)
    odd = f", {deviations.odd} that are not a number" if deviations.odd else ""
    lines = [
        f"A - B over {size} elements: rms {deviations.rms:.6g}, largest {deviations.reach:.6g}{odd}"
    ]
    if deviations.reach:
        width, most = 2 * deviations.reach / _BINS, max(deviations.counts)
        for place, count in enumerate(deviations.counts):
            low = -deviations.reach + place * width
            lines.append(f"{low:>12.4g} .. {low + width:<12.4g}{_bar(count / most)} {count}")
    if deviations.places:
        lines.append("farthest apart:")
        lines.append(f"  {'A':>14}  {'B':>14}  {'A - B':>14}  at")
    for place, value, wanted in zip(
        deviations.places, deviations.values, deviations.wanted, strict=True
    ):
        at = [int(i) for i in np.unravel_index(place, deviations.shape)] if deviations.shape else []
        lines.append(f"  {value:>14.7g}  {wanted:>14.7g}  {value - wanted:>14.7g}  {at}")
    return joined(lines)


def _bar(share: float) -> str:
    """A bar of blocks; what is not zero is seen."""
    eighths = max(round(share * _BAR * 8), 1 if share else 0)
    return "█" * (eighths // 8) + (_BLOCKS[eighths % 8] if eighths % 8 else "")


def worst_parts(target: Archive, reference: Archive, name: str, axis: int) -> list[str]:
    """The indices along an axis that lie farthest apart, by SQNR."""
    _, *rows = similarities(name, target, reference, axis=axis)
    worst = sorted(rows, key=lambda r: r.sqnr)[:_PARTS]
    return [f"  {r.sqnr:>6.1f} dB  cos {r.cos:.6f}  {r.name}" for r in worst]
