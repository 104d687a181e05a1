"""What people see of an array."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["render_array", "summary_line"]

_IMAGE_CHANNELS = 3


def summary_line(name: str, array: npt.NDArray[Any]) -> str:
    """Name, element type and shape of an array in one line."""
    return f"{name}  {array.dtype}{list(array.shape)}"


def render_array(name: str, array: npt.NDArray[Any], count: int = 16) -> str:
    """The summary, the first ``count`` elements (all below 0), and statistics.

    Arrays with 3 channels on axis 1 (or on axis 0 of three axes) have a line for each.
    """
    flat = array.reshape(-1)
    shown = flat if count < 0 or count >= flat.size else flat[:count]
    dots = " ..." if shown.size < flat.size else ""
    numbers = " ".join(str(x) for x in shown.tolist())
    lines = [summary_line(name, array), f"{numbers}{dots}"]
    if array.size and array.dtype.kind in "biuf":
        lines.append(_statistics("all", flat))
        axis = array.ndim - _IMAGE_CHANNELS
        if axis in (0, 1) and array.shape[axis] == _IMAGE_CHANNELS:
            channels = np.moveaxis(array, axis, 0)
            lines += [_statistics(f"channel {i}", c) for i, c in enumerate(channels)]
    return "\n".join(lines)


def _statistics(label: str, array: npt.NDArray[Any]) -> str:
    x = array.astype(np.float64).reshape(-1)
    odd = int(np.count_nonzero(~np.isfinite(x)))
    told = f"  not finite {odd}" if odd else ""
    x = x[np.isfinite(x)]
    if not x.size:
        return f"{label}:{told}"
    return (
        f"{label}: min {x.min():.6g}  max {x.max():.6g}  mean {x.mean():.6g}  "
        f"mean|x| {np.abs(x).mean():.6g}  std {x.std():.6g}{told}"
    )
