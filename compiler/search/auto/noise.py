"""What each rounding adds to the noise of the outputs, measured one at a time.

Noise of independent roundings adds up in power, so that of a mixed model is predicted by the sum
of what it rounds; it is a first guess, and candidates are run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from qdqc.calibration.table import Table
from qdqc.diagnostics import QdqcError
from qdqc.ir.graph import Module
from qdqc.runtime.sessions.session import Feeds, Runner
from qdqc.search.auto.judge import Judge
from qdqc.search.trials.layers import ranges_of
from qdqc.search.trials.mixed_models import MixedModels
from qdqc.search.trials.objective import Outputs
from qdqc.search.trials.trials import Trials

__all__ = ["mode_noise", "rounding_noise", "shares_below"]

_Report = Callable[[int, int, str], object]


def rounding_noise(
    trials: Trials, judge: Judge, within: Callable[[], bool], report: _Report
) -> dict[str, float]:
    """The noise over signal of each part of ``Layers.parts_with`` alone: values, and weights.

    ``judge`` has the samples of the trials.
    Parts that onnxruntime can't run by themselves are left out, and so are those behind the one
    at which ``within`` says that time is over.
    """
    layers, ranges = trials.layers, ranges_of(trials.layers.planned)
    noise: dict[str, float] = {}
    for number, layer in enumerate(layers.every, 1):
        if not within():
            break
        quants = layers.own_quants(layer, ranges)
        try:
            parts: Mapping[str, Sequence[Outputs]] = trials.part_outputs(layer, quants, ranges)
        except QdqcError:
            parts = {}
        for kind, outputs in parts.items():
            noise[f"{kind} {layer.name}"] = judge.noise(outputs)
        report(number, len(layers.every), layer.name)
    return noise


def shares_below(
    module: Module, table: Table, names: Iterable[str], sample: Feeds
) -> dict[str, float]:
    """Of the numbers of values that are not 0, the share below a step of 8 bits, by name.

    A spectrum or a log spans decades: most of it is nothing at the step that its peaks ask for.
    """
    known = [n for n in names if n in table.rows and module.value(n) is not None]
    if not known:
        return {}
    values = Runner(module, known, threads=1, lean=True).run(sample)
    steps = {n: (table.rows[n].max - table.rows[n].min) / 255 for n in known}
    sizes = {n: np.abs(values[n][values[n] != 0]) for n in known}
    return {n: float((sizes[n] < steps[n]).mean()) for n in known if sizes[n].size}


def mode_noise(
    models: MixedModels,
    table: Table,
    judge: Judge,
    names: Iterable[str],
    mode: str,
    within: Callable[[], bool],
) -> dict[str, float]:
    """The noise over signal of each of these products alone in a mode, all else float."""
    every = [n.name for n in models.module.graph.nodes()]
    floats = dict.fromkeys(every, "F32")
    noise: dict[str, float] = {}
    for name in names:
        if not within():
            break
        quality, _ = judge.judged(models.lowered(table, {**floats, name: mode}))
        noise[name] = 10 ** (-quality.sqnr / 10)
    return noise
