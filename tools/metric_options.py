"""A metric of the user's, and the labels that it judges by."""

from __future__ import annotations

from typing import Any

from qdqc.diagnostics import QdqcError

__all__ = ["add_metric_options", "labels_of", "metric_of"]


def add_metric_options(add: Any) -> None:
    """A metric of the user's and its labels."""
    add("--metric", metavar="F.py", help="def metric(outputs, labels) -> float: judges instead")
    add("--labels", metavar="F", help="labels for --metric: npy, or text with one a line")


def metric_of(args: Any) -> Any:
    """The metric of the user's, where there is one. Raises QdqcError for labels without."""
    from qdqc.user_files import function_of

    if args.metric:
        return function_of(args.metric, ("metric",), "the metric")
    if args.labels:
        note = "give --metric F.py, or leave --labels out"
        raise QdqcError("--labels are for a metric", notes=[note])
    return None


def labels_of(file: str | None) -> Any:
    """The labels, one a sample, in the order of the data."""
    import numpy as np

    from qdqc.data.archive import DAMAGED
    from qdqc.files import read_text

    if not file:
        return None
    if file.endswith(".npy"):
        try:
            return np.atleast_1d(np.load(file, allow_pickle=False))
        except DAMAGED as error:
            raise QdqcError(f"can't read the labels: {error}", file=file) from error
    text = read_text(file, "list of labels", "write one label a line")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    try:
        return np.array([float(line) for line in lines])
    except ValueError:
        return np.array(lines)
