"""Runs that may not end: a loop whose rounds only the run decides meets a limit."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import onnxruntime as ort

from qdqc.diagnostics import QdqcError
from qdqc.ir.graph import Module
from qdqc.memory import memory_bytes
from qdqc.ops.control import MOST_ROUNDS, Loop, Scan, static_rounds
from qdqc.runtime.machine import private_memory
from qdqc.runtime.sessions.fetch import fetch

__all__ = ["check_rounds", "has_loops", "run_watched"]

LONGEST = 120.0
"""Seconds that a run of a model with loops may take."""

_SHARE = 0.8
"""Of the machine's memory, what this process may take while a loop runs."""

_INTERVAL = 0.1


def has_loops(module: Module) -> bool:
    """Whether something in the module runs more than once."""
    return any(isinstance(node.op, Loop | Scan) for node in module.walk())


def check_rounds(module: Module) -> None:
    """Raises QdqcError, located, for loops that are known to run more than ``MOST_ROUNDS``."""
    for node, rounds in static_rounds(module.graph):
        if rounds > MOST_ROUNDS:
            raise QdqcError(
                f"its body would run {rounds} times, and {MOST_ROUNDS} is the limit",
                node=node.op.name,
                loc=node.loc,
                notes=["export the model with fewer rounds, or with a condition that ends them"],
            )


def run_watched(session: ort.InferenceSession, names: Sequence[str], feeds: Any) -> Sequence[Any]:
    """A session's run, ended where it takes too long or too much memory. Raises QdqcError."""
    options, done = ort.RunOptions(), threading.Event()
    reasons: list[str] = []

    def watch() -> None:
        start, most = time.monotonic(), _SHARE * (memory_bytes() or float("inf"))
        while not done.wait(_INTERVAL):
            if time.monotonic() - start > LONGEST:
                reasons.append(f"it took more than {LONGEST:g} s")
            elif private_memory(children=False) > most:
                reasons.append(f"it took more than {most:.0f} bytes of memory")
            if reasons:
                options.terminate = True
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        return fetch(session, list(names), feeds, options)
    except Exception as error:
        if not reasons:
            raise
        raise QdqcError(
            f"the run was stopped: {reasons[0]}, and a loop of the model may have no end",
            notes=["give inputs for which its loops end early"],
        ) from error
    finally:
        done.set()
        watcher.join()
