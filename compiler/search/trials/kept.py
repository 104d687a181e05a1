"""Values of the float model that trials begin at, within a memory budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from qdqc.calibration.demand import sizes_of
from qdqc.ir.graph import Module
from qdqc.runtime.sessions.session import Feeds, Runner
from qdqc.runtime.sessions.shared_weights import Weights
from qdqc.search.trials.spread import ALONE, Hands

__all__ = ["BUDGET", "Kept"]

BUDGET = 160 << 20
"""Bytes of values that are held at a time."""

_ELEMENT = 4


class Kept:
    """The values that the trials of each layer need, for all samples.

    Layers are asked for in graph order. Those in a row whose values fit into the budget share
    one run of the float model, which goes no further than they need. A layer whose values alone
    are larger is held all the same. ``needs`` are the names of values by layer.
    """

    def __init__(
        self,
        module: Module,
        samples: Sequence[Feeds],
        needs: Sequence[Sequence[str]],
        *,
        weights: Weights,
        opset: int,
        hands: Hands = ALONE,
        budget: int = BUDGET,
    ) -> None:
        self._module = module
        self._samples = samples
        self._hands = hands
        self._runner: Mapping[str, Any] = {"threads": 1, "weights": weights, "opset": opset}
        inputs = {v.name for v in module.graph.inputs}
        self._needs = [[n for n in names if n not in inputs] for names in needs]
        self._windows = self._parts(budget // max(1, len(samples)))
        self._window: tuple[int, list[Mapping[str, npt.NDArray[Any]]]] = (-1, [])

    def of(self, layer: int) -> list[Mapping[str, npt.NDArray[Any]]]:
        """The values for the layer of that number, and the inputs, sample by sample."""
        window = self._windows[layer]
        if self._window[0] != window:
            self._window = (-1, [])  # the memory of one window goes before the next is filled
            members = [n for n, w in zip(self._needs, self._windows, strict=True) if w == window]
            names = list(dict.fromkeys(name for needs in members for name in needs))
            self._window = (window, self._run(names))
        return self._window[1]

    def _run(self, names: list[str]) -> list[Mapping[str, npt.NDArray[Any]]]:
        if not names:
            return list(self._samples)
        runner = Runner(self._module, names, cut=True, **self._runner)
        inputs = runner.inputs

        def values(sample: Feeds) -> list[Mapping[str, npt.NDArray[Any]]]:
            return [{**sample, **runner.run({n: sample[n] for n in inputs})}]

        threads = Hands(self._hands.threads)  # what processes keep would have to be sent here
        return [kept for (kept,) in threads.each(values, self._samples)]

    def _parts(self, limit: int) -> list[int]:
        """The window of each layer."""
        every = list(dict.fromkeys(n for needs in self._needs for n in needs))
        sample = self._samples[0] if self._samples else {}
        sizes = sizes_of(self._module.graph, every, dict(sample))
        windows: list[int] = []
        needed: set[str] = set()
        for needs in self._needs:
            wanted = needed | set(needs)
            is_full = _ELEMENT * sum(sizes[n] for n in wanted) > limit
            window = windows[-1] if windows else 0
            if is_full and needed:
                window, wanted = window + 1, set(needs)
            windows.append(window)
            needed = wanted
        return windows
