"""Do a stated mean and scale make numbers of pixels that a network is trained on?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from qdqc.data.preprocess import Preprocess
from qdqc.diagnostics import Diagnostic, Severity

__all__ = ["doubtful_numbers"]

_PIXEL = 255.0
_WIDTHS = (0.9, 16.0)
"""What the range of a normalised channel is as wide as: 1 for 0..1, about 4.5 for ImageNet's."""
_FAR = 1000.0
_FORM = "y = (pixel - mean) * scale on pixels of 0..255"

Numbers: TypeAlias = Sequence[float]


def doubtful_numbers(name: str, stated: Preprocess) -> Diagnostic | None:
    """A warning that names the mistake, where mean and scale look like one.

    Known mistakes are those whose correction makes numbers that networks take: mean and scale in
    each other's place, a standard deviation for its inverse, and numbers for pixels of 0..1.
    """
    if not stated.is_image or not stated.is_stated:
        return None
    mean, scale = stated.means, stated.scales
    if _is_usual(mean, scale):
        return None
    for what, corrected in _MISTAKES:
        for right in corrected(mean, scale):
            if _is_usual(*right):
                advice = f"{_FORM}: `mean` {_text(right[0])} and `scale` {_text(right[1])}?"
                return _warning(name, stated, what, advice)
    if not all(0 <= m <= _PIXEL for m in mean):
        return _warning(name, stated, "the mean is none of pixels of 0..255", _FORM)
    low, high = _reach(mean, scale)
    if max(map(abs, (low, high))) > _FAR or high - low < _WIDTHS[0] / 10:
        return _warning(name, stated, "no network is trained on that", _FORM)
    return None


def _is_usual(mean: Numbers, scale: Numbers) -> bool:
    """Whether pixels are normalised, or centred at most, by a mean that is one of pixels."""
    low, high = _WIDTHS
    whole = all(m == 0 or 1 < m <= _PIXEL for m in mean)
    return whole and all(s == 1 or low <= _PIXEL * s <= high for s in scale)


def _swapped(mean: Numbers, scale: Numbers) -> list[tuple[Numbers, Numbers]]:
    return [(scale, mean)]


def _inverse(mean: Numbers, scale: Numbers) -> list[tuple[Numbers, Numbers]]:
    return [(mean, [1 / s for s in scale])] if all(s > 1 for s in scale) else []


def _of_units(mean: Numbers, scale: Numbers) -> list[tuple[Numbers, Numbers]]:
    """For pixels of 0..1; the scale may be a standard deviation of these, or of 0..255."""
    wide = [_PIXEL * m for m in mean] if all(0 <= m <= 1 for m in mean) else mean
    if not all(s > 0 for s in scale):
        return []
    scales = (
        [s / _PIXEL for s in scale],
        [1 / (_PIXEL * s) for s in scale],
        scale,
        [1 / s for s in scale],
    )
    return [(wide, right) for right in scales]


_MISTAKES: tuple[tuple[str, Callable[[Numbers, Numbers], list[tuple[Numbers, Numbers]]]], ...] = (
    ("mean and scale look swapped", _swapped),
    ("scale looks like the standard deviation, where its inverse is wanted", _inverse),
    ("they look like mean and scale of pixels of 0..1", _of_units),
)


def _reach(mean: Numbers, scale: Numbers) -> tuple[float, float]:
    ends = [(x - m) * s for m, s in zip(mean, scale, strict=True) for x in (0.0, _PIXEL)]
    return min(ends), max(ends)


def _warning(name: str, stated: Preprocess, what: str, advice: str) -> Diagnostic:
    low, high = _reach(stated.means, stated.scales)
    return Diagnostic(
        Severity.WARNING,
        f"mean {_text(stated.means)} and scale {_text(stated.scales)} make {low:.4g} to {high:.4g} "
        f"of pixels for input '{name}': {what}",
        notes=(advice,),
    )


def _text(numbers: Numbers) -> str:
    """Numbers in four digits, one where all channels have the same."""
    return ",".join(f"{n:.4g}" for n in (numbers[:1] if len(set(numbers)) == 1 else numbers))
