"""What a picture of a value needs: some of its elements, the same ones in both runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from qdqc.calibration.methods.method import METHODS
from qdqc.calibration.statistics import Statistics

__all__ = ["Sketch", "Sketches"]

_ELEMENTS = 1 << 21
"""Elements kept of each run, over all values and samples."""

_LEAST, _MOST = 32, 2048
"""Elements kept of one value of one sample."""

_WITH_THRESHOLDS = 300
"""Values up to which the methods' ranges are found: it takes some 10 ms each."""


@dataclass
class Sketch:
    """Elements of one value in both runs, sample by sample."""

    exact: list[npt.NDArray[Any]] = field(default_factory=list[npt.NDArray[Any]])
    quantized: list[npt.NDArray[Any]] = field(default_factory=list[npt.NDArray[Any]])

    def elements(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Float and quantized elements where both are finite, [n] each."""
        if not self.exact:
            return np.zeros(0), np.zeros(0)
        exact, quantized = np.concatenate(self.exact), np.concatenate(self.quantized)
        finite = np.isfinite(exact) & np.isfinite(quantized)
        return exact[finite], quantized[finite]


class Sketches:
    """Sketches of values by name; elements lie evenly over each array."""

    def __init__(self, values: int, samples: int) -> None:
        share = _ELEMENTS // max(1, values * samples)
        self._count = min(_MOST, max(_LEAST, share))
        self._with_thresholds = values <= _WITH_THRESHOLDS
        self.by_name: dict[str, Sketch] = {}

    def see(self, name: str, exact: npt.NDArray[Any], quantized: npt.NDArray[Any]) -> None:
        """Take in a value of one sample, in the float run and in the quantized one."""
        if exact.shape != quantized.shape or not exact.size:
            return
        sketch = self.by_name.setdefault(name, Sketch())
        places = np.linspace(0, exact.size - 1, min(exact.size, self._count)).astype(np.intp)
        sketch.exact.append(exact.reshape(-1)[places].astype(np.float32))
        sketch.quantized.append(quantized.reshape(-1)[places].astype(np.float32))

    def thresholds(self, name: str) -> dict[str, tuple[float, float]]:
        """The range that each calibration method lays for the elements of a value.

        Empty where the model has too many values.
        """
        exact = self.by_name[name].elements()[0]
        if not self._with_thresholds or not exact.size:
            return {}
        seen = Statistics()
        seen.update_sample(exact)
        ranges = {method.name: method.range(seen) for method in METHODS}
        return {name: (r.min, r.max) for name, r in ranges.items()}
