"""search_threshold: the method whose deployed model is nearest to the float model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from qdqc.calibration.table import Table
from qdqc.diagnostics import QdqcError
from qdqc.ir.graph import Module
from qdqc.runtime.sessions.session import Feeds, Runner
from qdqc.search.trials.deployment import Deployment, Fidelity, fidelity

__all__ = ["Found", "search_threshold"]


@dataclass(frozen=True)
class Found:
    """The best method, and what each of them reached."""

    method: str
    scores: dict[str, Fidelity]


def search_threshold(
    module: Module,
    tables: Mapping[str, Table],
    samples: Sequence[Feeds],
    *,
    target: str = "ort-cpu",
    symmetric: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Found:
    """Deploy the module in memory by each table, and take the one with the best mean SQNR.

    SQNR orders as TPU-MLIR's ``1 - snr`` does, and tells near ones apart where cosines are all
    .99; a tie goes to the table that stands first. Raises QdqcError without samples.
    """
    if not samples:
        raise QdqcError("there are no samples to search on", notes=["give --inference_num above 0"])
    deployment = Deployment(module, target, symmetric)
    plain = Runner(module)
    reference = [plain.run(feeds) for feeds in samples]
    scores: dict[str, Fidelity] = {}
    for name, table in tables.items():
        scores[name] = fidelity(deployment.lowered(table), samples, reference)
        if progress is not None:
            progress(len(scores))
    best = max(scores, key=lambda name: scores[name].sqnr)
    return Found(best, scores)
