"""The whole search in one call: a float model and data in, the layers to leave float out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qdqc.calibration.calibrate import calibrate
from qdqc.calibration.thresholds import DEFAULT
from qdqc.data.dataset import open_dataset
from qdqc.diagnostics import QdqcError
from qdqc.ir.graph import Module
from qdqc.onnx_io.importer import import_onnx
from qdqc.pipeline.manager import run
from qdqc.quant.targets.target import target_named
from qdqc.runtime.sessions.open_taps import open_taps_of
from qdqc.search.strategies.mixes import Mixes
from qdqc.search.strategies.sensitivity import SCREENED, Sensitivity
from qdqc.search.strategies.smallest import find_smallest
from qdqc.search.trials.deployment import Deployment
from qdqc.search.trials.journal import Journal
from qdqc.search.trials.objective import Likeness, Metric, Objective
from qdqc.search.trials.trials import Trials

__all__ = ["SensitiveLayers", "search_layers"]


@dataclass(frozen=True)
class SensitiveLayers:
    """What a search found.

    ``losses`` is what each layer loses alone in INT8, the worst first. With the layers of
    ``qtable`` float the model scores ``score``, with none ``int8``; ``goal`` is what was asked.
    """

    losses: Mapping[str, float]
    qtable: Mapping[str, str]
    int8: float
    score: float
    goal: float

    @property
    def reached(self) -> bool:
        """Whether the model with the layers of ``qtable`` float has the score that was asked."""
        return self.score >= self.goal


def search_layers(
    model: Any,
    dataset: str | Path | Iterable[Mapping[str, Any]],
    *,
    expected_cos: float = 0.99,
    metric: Callable[[Mapping[str, Any], Any], float] | None = None,
    labels: Sequence[Any] | None = None,
    max_drop: float = 0.01,
    inference_num: int = 30,
    exact: bool = False,
    target: str = "ort-cpu",
    method: str = DEFAULT,
    symmetric: bool = False,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
) -> SensitiveLayers:
    """The fewest layers to leave float, for ``qdqc.quantize`` with the same arguments.

    ``model``, ``dataset``, ``target``, ``method``, ``symmetric`` and ``input_shapes`` are as
    there; ``qtable`` of what is found goes there. Outputs on the first ``inference_num`` samples
    shall have a mean cosine of ``expected_cos`` to the float ones; or ``metric(outputs, labels)``
    shall fall by no more than ``max_drop``. No file is written. Raises QdqcError.
    """
    target_named(target)
    module = run(import_onnx(model, input_shapes=input_shapes), "@transform")
    data = dataset if isinstance(dataset, str | Path) else list(dataset)
    opened = open_dataset(data, module.graph)
    samples = list(itertools.islice(opened, inference_num))
    (table,) = calibrate(module, opened, open_taps_of(module), [method]).values()
    objective = _objective(module, metric, labels, len(samples))
    trials = Trials(Deployment(module, target, symmetric), table, samples, objective)
    goal = trials.ideal - max_drop if metric is not None else expected_cos
    search = Sensitivity(trials, {method: table}, Journal(None, ""))
    search.run(screened=0 if exact or metric is not None else SCREENED)
    mix = Mixes(trials, table, search.journal, goal)
    _shrunk(mix, search)
    ranking = search.ranking()
    floats = [j.layer.name for j in ranking if j.layer.name in mix.best.floats]
    losses = {j.layer.name: j.loss for j in ranking}
    return SensitiveLayers(losses, dict.fromkeys(floats, "F32"), mix.score(), mix.best.score, goal)


def _shrunk(mixes: Mixes, search: Sensitivity) -> None:
    """Verify models until the best one is the smallest that was found."""
    if mixes.reaches(()):
        return
    parts = search.parts()
    parts.measure()
    find_smallest(mixes, parts, [j.layer.name for j in search.ranking()])


def _objective(
    module: Module, metric: Callable[..., float] | None, labels: Sequence[Any] | None, count: int
) -> Objective:
    names = tuple(v.name for v in module.graph.outputs if v.tensor.elem.is_float)
    if not names:
        note = "search it with run_sensitive_layer --global_compare_layers"
        raise QdqcError("the model has no float outputs to compare", notes=[note])
    if metric is None:
        if labels is not None:
            raise QdqcError("labels are for a metric", notes=["give metric, or leave labels out"])
        return Likeness({n: 1 / len(names) for n in names})
    if labels is not None and len(labels) < count:
        note = "give one label a sample, in the order of the data"
        raise QdqcError(f"there are {len(labels)} labels for {count} samples", notes=[note])
    return Metric(names, metric, labels)
