"""Random inputs that a model takes, for checks where nobody gives data."""

from __future__ import annotations

import time
from collections.abc import Mapping

from qdqc.data.fit import Sample
from qdqc.data.input_sizes import Sizes, free_sizes, tried_sizes
from qdqc.data.random_inputs import random_samples
from qdqc.diagnostics import QdqcError
from qdqc.ir.graph import Module
from qdqc.runtime.sessions.session import Runner

__all__ = ["samples_that_run"]

_MOST_TRIES = 60
_MOST_SECONDS = 20.0


def samples_that_run(
    module: Module, count: int, ranges: Mapping[str, tuple[float, float]] | None
) -> list[Sample]:
    """Random samples of sizes on which the module runs.

    Sizes that the inputs leave open are drawn from the relations of the graph; where it does not
    run on them, others are tried. Raises QdqcError where it runs on none, with the sizes of the
    first try and what onnxruntime says of it.
    """
    graph = module.graph
    if not free_sizes(graph):
        return random_samples(graph, count, ranges)
    runner = Runner(module)
    first: tuple[Sizes, QdqcError] | None = None
    started = time.monotonic()
    for tried, sizes in enumerate(tried_sizes(graph)):
        if tried >= _MOST_TRIES or time.monotonic() - started > _MOST_SECONDS:
            break
        samples = random_samples(graph, count, ranges, sizes=sizes)
        try:
            runner.run(samples[0])
        except QdqcError as error:
            first = first or (sizes, error)
            continue
        return samples
    assert first is not None, "there is a first try"
    sizes, error = first
    listed = ", ".join(f"{name} = {size}" for name, size in sizes.items())
    raise QdqcError(
        f"no random inputs were found on which the model runs; for {listed}: "
        f"{error.diagnostic.message}",
        notes=[
            "give sizes that fit together as `input_shapes` at the import, or data as `test_input`"
        ],
    ) from error
