"""Latency of several things in one process, interleaved so that a busy machine hits all alike."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from qdqc.runtime.sessions.fetch import fetch
from qdqc.runtime.sessions.sequences import as_given
from qdqc.runtime.sessions.session import Feeds, open_session
from qdqc.scratch import scratch_folder

__all__ = [
    "Kernels",
    "OpTime",
    "Seconds",
    "Spread",
    "interleave",
    "kernel_times",
    "op_times",
    "profile_models",
    "ratio",
    "spread",
    "time_models",
]

Seconds: TypeAlias = npt.NDArray[np.float64]
Kernels: TypeAlias = dict[tuple[str, str], float]
"""Seconds by the op and the name of a kernel."""

_KERNEL = "_kernel_time"
_PROFILED = 20
"""Runs that the profile of a model is taken over, after one that warms it up."""


@dataclass(frozen=True)
class Spread:
    """Median and quartiles."""

    median: float
    low: float
    high: float

    def text(self, *, scale: float = 1.0, digits: int = 2) -> str:
        """As ``median [low, high]``."""
        median, low, high = (f"{v * scale:.{digits}f}" for v in (self.median, self.low, self.high))
        return f"{median} [{low}, {high}]"


@dataclass(frozen=True)
class OpTime:
    """What the kernels of one op cost a run: their number, and seconds of all of them."""

    op: str
    nodes: int
    seconds: float


def interleave(
    runs: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    repeats: int = 1,
    warmup: int = 3,
    primed: bool = False,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Seconds]:
    """Seconds of one call of each run, [rounds] each.

    In every round each run is called ``repeats`` times in a row, and the order of the runs is
    drawn anew, so that none always follows the same one. ``warmup`` rounds are left out.
    ``primed`` calls each once beforehand, every time: what it reads has left the processor's
    caches while the others ran, as it does not where a model runs by itself.
    """
    order = list(runs)
    draw = random.Random(seed)
    out: dict[str, list[float]] = {name: [] for name in order}
    for number in range(warmup + rounds):
        draw.shuffle(order)
        for name in order:
            call = runs[name]
            if primed:
                call()
            start = clock()
            for _ in range(repeats):
                call()
            passed = (clock() - start) / repeats
            if number >= warmup:
                out[name].append(passed)
    return {name: np.array(values) for name, values in out.items()}


def time_models(
    models: Mapping[str, Any],
    feeds: Mapping[str, Feeds],
    *,
    rounds: int = 30,
    threads: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Seconds]:
    """Seconds that each model takes for its inputs, [rounds] each, interleaved.

    ``models`` are files or ModelProtos by name. Raises QdqcError where one can't be loaded.
    """
    runs: dict[str, Callable[[], object]] = {}
    for name, model in models.items():
        session = open_session(model, threads=threads)
        inputs = {n: as_given(a) for n, a in feeds[name].items()}
        runs[name] = partial(fetch, session, None, inputs)
    return interleave(runs, rounds, clock=clock)


def op_times(model: Any, feeds: Feeds, *, threads: int = 1) -> list[OpTime]:
    """What the kernels of a file or ModelProto cost by onnxruntime's profile, dearest op first.

    Seconds are those of each kernel by itself; ops are those of the optimised model.
    """
    by_op: dict[str, list[float]] = {}
    for (op, _), seconds in kernel_times(model, feeds, threads=threads).items():
        by_op.setdefault(op, []).append(seconds)
    rows = [OpTime(op, len(medians), sum(medians)) for op, medians in by_op.items()]
    return sorted(rows, key=lambda row: -row.seconds)


def kernel_times(
    model: Any,
    feeds: Feeds,
    *,
    threads: int = 1,
    runs: int = _PROFILED,
    optimise: str = "all",
    optimised: str | None = None,
) -> Kernels:
    """Seconds of each kernel of a file or ModelProto: ``profile_models`` of one."""
    files = {"model": optimised} if optimised is not None else {}
    profiles = profile_models(
        {"model": model},
        {"model": feeds},
        threads=threads,
        runs=runs,
        optimise=optimise,
        optimised=files,
    )
    return profiles["model"]


def profile_models(
    models: Mapping[str, Any],
    feeds: Mapping[str, Feeds],
    *,
    threads: int = 1,
    runs: int = _PROFILED,
    optimise: str = "all",
    optimised: Mapping[str, str] = {},
) -> dict[str, Kernels]:
    """Seconds of each kernel by its op and its node's name in the optimised model, by model.

    They are lower quartiles over runs that follow one that warms up, by onnxruntime's profile of
    files or ModelProtos: what else a machine does only ever adds. Models take turns, so that all
    of them meet it alike. ``optimised`` are files that get the optimised models.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(scratch_folder("profile")))
        sessions = {
            name: open_session(
                model,
                optimise=optimise,
                threads=threads,
                profile=str(folder / f"profile{number}"),
                optimised=optimised.get(name),
            )
            for number, (name, model) in enumerate(models.items())
        }
        inputs = {name: {n: as_given(a) for n, a in feeds[name].items()} for name in sessions}
        for _ in range(1 + runs):
            for name, session in sessions.items():
                fetch(session, None, inputs[name])
        return {name: _kernels(session.end_profiling()) for name, session in sessions.items()}


def _kernels(profile: str) -> Kernels:
    """What the file of a profile says of kernels."""
    kernels: dict[tuple[str, str], list[float]] = {}
    for event in json.loads(Path(profile).read_text(encoding="utf-8")):
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL):
            key = event["args"]["op_name"], event["name"].rpartition(_KERNEL)[0]
            kernels.setdefault(key, []).append(event["dur"] * 1e-6)
    return {key: float(np.percentile(taken[1:] or taken, 25)) for key, taken in kernels.items()}


def spread(values: npt.ArrayLike) -> Spread:
    """Median and quartiles of values."""
    low, median, high = np.percentile(np.asarray(values, np.float64), [25, 50, 75])
    return Spread(float(median), float(low), float(high))


def ratio(above: Seconds, below: Seconds) -> Spread:
    """Ratio of the medians, with the quartiles of the ratio within a round."""
    within = spread(above / below)
    return Spread(float(np.median(above) / np.median(below)), within.low, within.high)
