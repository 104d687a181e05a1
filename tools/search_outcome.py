"""How the commands of the search end: run, write what is known, and show it."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from qdqc.diagnostics import QdqcError, Severity
from qdqc.tools.command import Invocation
from qdqc.tools.search_files import SearchFiles

if TYPE_CHECKING:
    from qdqc.report.search_plot import SearchPlot
    from qdqc.search.strategies.strategy import Search, Strategy

__all__ = ["finish_search"]


def finish_search(
    search: Search,
    strategy: Strategy,
    files: SearchFiles,
    invocation: Invocation,
    *,
    resumes: bool = False,
) -> None:
    """Run a strategy, write what it found and show it.

    Where it is interrupted, what is known so far is written; ``resumes`` says that the same
    command goes on from there. Raises QdqcError and KeyboardInterrupt.
    """
    started = time.monotonic()
    try:
        search.run(strategy)
    except KeyboardInterrupt as stop:
        if not search.is_known:
            raise
        _write(search, files, invocation, started)
        again = "; the same command goes on from there" if resumes else ""
        word = str(stop).partition(":")[0] or "interrupted"
        stop.args = (f"{word}: the files hold what is known so far{again}",)
        raise
    _write(search, files, invocation, started)
    _show(search, files, invocation)


def _write(search: Search, files: SearchFiles, invocation: Invocation, started: float) -> None:
    from qdqc.report.search_text import search_entries, search_log

    try:
        search.table.kept()
    except QdqcError as error:  # the new table goes without them
        invocation.warn(replace(error.diagnostic, severity=Severity.WARNING))
    picture = None
    try:
        if files.plot:
            from qdqc.report.search_plot import draw

            limit = getattr(invocation.args, "max_latency", None)
            picture = draw(_plot(search, files, limit), files.plot)
    finally:  # what was found is not lost for a picture
        lines = search_log(search, files.model, files.qtable, time.monotonic() - started)
        files.write(search, lines, picture)
    invocation.report |= search_entries(search)


def _plot(search: Search, files: SearchFiles, limit: float | None) -> SearchPlot:
    from qdqc.report.search_plot import SearchPlot

    measure = "loss alone in INT8"
    if search.sensitivity is None:
        measure = "1 - cosine of the layer" if search.cosines else "gain in float"
    names = [layer.name for layer in search.trials.layers.integer]
    return SearchPlot(
        title=f"{files.model}: INT8 {search.int8:.6f}",
        losses={name: search.losses[name] for name in names if name in search.losses},
        measure=measure,
        verified=search.mixes.verified.values(),
        chosen=search.result,
        goal=search.goal,
        points=search.points,
        limit=None if limit is None or not search.points else limit / 1000,
    )


def _show(search: Search, files: SearchFiles, invocation: Invocation) -> None:
    """The closing table, and what was written."""
    from qdqc.report.search_text import render_front, render_worst

    tell, conclude = invocation.tell, invocation.conclude
    if search.points:
        conclude(render_front(search))
    elif search.sensitivity is not None:
        conclude("the layers that lose most alone in INT8:")
        conclude(render_worst(search.sensitivity, search.table, search.floats))
    score, total = search.result.score, len(search.trials.layers.integer)
    floats = f"with {len(search.floats)} of {total} layers float"
    conclude(f"INT8 {search.int8:.6f}, mixed {score:.6f} {floats}")
    if score < search.goal:
        invocation.warn(f"no set that was tried reaches {search.goal:.6f}; the best one is written")
    written = [files.qtable]
    if search.sensitivity is not None:
        written += [str(files.new_table), str(files.log)]
    if search.cosines:
        written.append(str(files.losses))
    written += [files.plot] if files.plot else []
    *first, last = written
    tell(f"wrote {', '.join(first)} and {last}" if first else f"wrote {last}")
