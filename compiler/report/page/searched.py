"""What searches found, as the reports of run_sensitive_layer and run_qtable hold it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from qdqc.diagnostics import QdqcError
from qdqc.files import read_text

__all__ = ["read_searches"]

_STEP = "give the file that run_sensitive_layer or run_qtable wrote by --report"


def read_searches(paths: Iterable[str | Path]) -> dict[str, Any]:
    """The ranking of layers and the front of accuracy and latency of reports; a later one wins.

    ``ranking`` holds name, op, loss and whether the layer stays float, ``front`` milliseconds,
    score and the number of float layers. Raises QdqcError for what is not such a report.
    """
    entries: dict[str, Any] = {}
    for path in paths:
        entries |= _read(Path(path))
    return entries


def _read(path: Path) -> dict[str, Any]:
    try:
        report = json.loads(read_text(path, "report of a search", _STEP))
    except (ValueError, RecursionError):
        raise _refused(path, "it is not JSON") from None
    if not isinstance(report, Mapping) or not isinstance(report.get("ranking"), list):
        raise _refused(path, "it has no ranking of layers")
    try:
        return dict(_entries(report))
    except (KeyError, TypeError, ValueError) as error:
        raise _refused(path, f"an entry is not as expected: {error!r}") from None


def _entries(report: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    floats = {str(name) for name in report.get("float_layers", ())}
    scores = {key: _number(report[key]) for key in ("int8_cos", "mix_cos") if key in report}
    yield "scores", {**scores, "floats": len(floats)}
    yield (
        "ranking",
        [
            {
                "name": str(row["name"]),
                "op": str(row.get("op", "")),
                "loss": _number(row["loss"]),
                "float": str(row["name"]) in floats,
            }
            for row in report["ranking"]
        ],
    )
    front = [
        {
            "ms": _number(point["measured_ms"]),
            "predicted": _number(point["predicted_ms"]),
            "score": _number(point["score"]),
            "floats": len(point["float_layers"]),
        }
        for point in report.get("front", ())
    ]
    if front:
        yield "front", sorted(front, key=lambda point: point["ms"])


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a number")
    return value


def _refused(path: Path, why: str) -> QdqcError:
    return QdqcError(f"this is not a report of a search: {why}", file=str(path), notes=[_STEP])
