"""search_threshold: the method whose deployed model is nearest to the float model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from qdqc.calibration.table import Table
from qdqc.diagnostics import QdqcError
from qdqc.runtime.comparison.choices import judged_values
from qdqc.runtime.comparison.fidelity import Fidelity, fidelity
from qdqc.runtime.sessions.session import Feeds, Runner
from qdqc.search.trials.mixed_models import MixedModels

__all__ = ["ThresholdScores", "search_threshold"]


@dataclass(frozen=True)
class ThresholdScores:
    """The best method, and what each of them reached."""

    method: str
    scores: dict[str, Fidelity]


def search_threshold(
    models: MixedModels,
    tables: Mapping[str, Table],
    samples: Sequence[Feeds],
    *,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> ThresholdScores:
    """Deploy the module in memory by each table, and take the one with the best mean SQNR.

    SQNR orders as TPU-MLIR's ``1 - snr`` does, and tells near ones apart where cosines are all
    .99; a tie goes to the table that stands first. Raises QdqcError without samples.
    """
    if not samples:
        raise QdqcError("there are no samples to search on", notes=["give `inference_num` above 0"])
    names = judged_values(models.module)
    if not names:
        note = "choose a method: it can't be searched"
        raise QdqcError("the model has no float values to be judged by", notes=[note])
    float_runner = Runner(models.module, names)
    pairs = [(feeds, float_runner.run(feeds)) for feeds in samples]
    scores: dict[str, Fidelity] = {}
    for name, table in tables.items():
        scores[name] = fidelity(Runner(models.lowered(table), names), pairs, names)
        progress(len(scores), len(tables))
    best = max(scores, key=lambda name: scores[name].sqnr)
    return ThresholdScores(best, scores)
