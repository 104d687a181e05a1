"""Do arrays that are given as they are look like what the model's preprocessing makes?"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from qdqc.data.fit import InputSpec, Sample
from qdqc.data.preprocess import Preprocess
from qdqc.diagnostics import Diagnostic, Severity

__all__ = ["implausible"]

_PIXEL = 255.0
_NEXT = (
    "npz and npy data are taken as they are: give (pixel - mean) * scale, or images, or correct "
    "`mean` and `scale` at model_transform"
)


def implausible(specs: Iterable[InputSpec], samples: Iterable[Sample]) -> list[Diagnostic]:
    """A warning for each image input whose numbers can't come from its preprocessing.

    ``y = (x - mean) * scale`` of pixels from 0 to 255 lies within known bounds. Numbers of the
    kind 0..1 or 0..255 where the bounds are others, and numbers far outside of them, are reported.
    Inputs that state no mean and no scale are left alone.
    """
    stated = [(s, s.preprocess) for s in specs if s.preprocess is not None]
    looked_at = [(s, p, _bounds(p)) for s, p in stated if _says_something(p)]
    warnings: list[Diagnostic] = []
    seen = list(samples) if looked_at else []
    for spec, preprocess, bounds in looked_at:
        arrays = [np.asarray(s[spec.name]) for s in seen if s[spec.name].size]
        if not arrays:
            continue
        low, high = min(float(a.min()) for a in arrays), max(float(a.max()) for a in arrays)
        doubt = _doubt(low, high, *bounds)
        if doubt is not None:
            warnings.append(_warning(spec, preprocess, (low, high), bounds, doubt))
    return warnings


def _says_something(preprocess: Preprocess) -> bool:
    plain = set(preprocess.means) == {0.0} and set(preprocess.scales) == {1.0}
    return preprocess.is_image and not plain


def _bounds(preprocess: Preprocess) -> tuple[float, float]:
    """The least and the largest number that any pixel becomes."""
    pairs = list(zip(preprocess.means, preprocess.scales, strict=True))
    ends = [(x - mean) * scale for mean, scale in pairs for x in (0.0, _PIXEL)]
    return min(ends), max(ends)


def _doubt(low: float, high: float, least: float, most: float) -> str | None:
    """What the numbers look like instead; None where they may be right."""
    width = most - least
    if low >= 0 and 2 < high <= _PIXEL and high > 1.5 * most:
        return "they look like pixels of 0..255 that were not preprocessed"
    if low >= 0 and high <= 1 and (most > 2 or least < -0.5):
        return "they look like pixels divided by 255"
    if low < least - width / 2 or high > most + width / 2:
        return "they reach far outside of it"
    return None


def _warning(
    spec: InputSpec,
    preprocess: Preprocess,
    seen: tuple[float, float],
    bounds: tuple[float, float],
    doubt: str,
) -> Diagnostic:
    mean, scale = (",".join(f"{v:g}" for v in vs) for vs in (preprocess.means, preprocess.scales))
    return Diagnostic(
        Severity.WARNING,
        f"the data for input '{spec.name}' lie in {seen[0]:g} to {seen[1]:g}, but mean {mean} and "
        f"scale {scale} make {bounds[0]:g} to {bounds[1]:g} of pixels: {doubt}",
        notes=(_NEXT,),
    )
