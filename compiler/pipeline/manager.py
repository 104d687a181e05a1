"""Running passes one after another, with the verifier between them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from qdqc.diagnostics import Diagnostic, QdqcError, Severity, joined
from qdqc.ir.clone import clone
from qdqc.ir.graph import Module
from qdqc.pipeline.instrument import Instrument, PassRun, Report, Where
from qdqc.pipeline.pass_ import Pass, PassContext
from qdqc.pipeline.snapshot import Snapshot, snapshot
from qdqc.pipeline.spec import print_pipeline, resolve
from qdqc.user_files import place_of

if TYPE_CHECKING:
    from qdqc.calibration.table import Table
    from qdqc.quant.qtable import Qtable

__all__ = ["PassError", "PassManager", "run"]

_MORE = 4
"""So many further findings of the verifier are reported behind the first."""


class PassError(Exception):
    """A pass raised something that is not a user error: a defect of that pass."""


class PassManager:
    """Runs passes on a module, in place.

    With ``verify_each`` the verifier runs after each pass, and a pass that claims to have
    changed nothing is held to it. Instruments look on. Warnings of passes go to ``warn``.
    ``samples``, ``table`` and ``qtable`` are for passes that name no file of their own for
    these, as ``PassContext`` has them.
    """

    def __init__(
        self,
        passes: Sequence[Pass],
        *,
        instruments: Iterable[Instrument] = (),
        verify_each: bool = True,
        warn: Callable[[Diagnostic], object] | None = None,
        samples: Iterable[dict[str, Any]] | None = None,
        table: Table | None = None,
        qtable: Qtable | None = None,
    ) -> None:
        self.passes = list(passes)
        self.instruments = list(instruments)
        self.verify_each = verify_each
        self.warn = warn if warn is not None else _to_stderr
        self.samples = samples
        self.table = table
        self.qtable = qtable

    def run(self, module: Module) -> Report:
        """Run all passes and append them to the module's ``pipeline`` entry.

        The module is verified first, for a text may say what holds together nowhere. Raises
        QdqcError, with the pass in a note, when a pass refuses the module or breaks it,
        and PassError when a pass fails in any other way. The module is then as the failing
        pass left it.
        """
        report = Report()
        state: Snapshot | None = None
        for instrument in self.instruments:
            instrument.begin(module, self.passes)
        try:
            if self.verify_each and self.passes:
                _verify(module)
            for index, pass_ in enumerate(self.passes, 1):
                where = Where(pass_, index, len(self.passes))
                ctx = PassContext(samples=self.samples, table=self.table, qtable=self.qtable)
                done, state = self._run_one(module, where, state, ctx)
                report.runs.append(done)
                report.decisions = {**report.decisions, **ctx.decisions}
                report.reasons |= ctx.reasons
        finally:
            for instrument in self.instruments:
                instrument.end(module, report)
        if self.passes:
            before = module.header.get("pipeline")
            ran = print_pipeline(self.passes)
            module.header["pipeline"] = f"{before},{ran}" if before else ran
        return report

    def _run_one(
        self, module: Module, where: Where, state: Snapshot | None, ctx: PassContext
    ) -> tuple[PassRun, Snapshot | None]:
        """Run one pass. ``state`` is the module's, where it is known."""
        done = PassRun(where.pass_.name, statistics=ctx.statistics)
        for instrument in self.instruments:
            instrument.before(module, where, ctx)
        if self.verify_each and state is None:
            start = time.perf_counter()
            state = snapshot(module)
            done.verify_seconds = time.perf_counter() - start
        try:
            start = time.perf_counter()
            done.changes = _count(where.pass_.run(module.graph, ctx), where.pass_)
            done.seconds = time.perf_counter() - start
            if self.verify_each:
                start = time.perf_counter()
                # What did not change was looked at before; use lists are no part of a snapshot.
                if done.changes or where.index == where.total:
                    _verify(module)
                _check_claim(module, state, done)
                done.verify_seconds += time.perf_counter() - start
        except Exception as error:
            raise self._failure(module, where, error) from error
        finally:
            for warning in ctx.warnings:
                self.warn(warning)
        for instrument in self.instruments:
            instrument.after(module, where, done, ctx)
        return done, state if done.changes == 0 else None

    def _failure(self, module: Module, where: Where, error: Exception) -> Exception:
        """The error as it is reported: with the pass, its place and how to reproduce it."""
        notes = [i.failed(module, where, error) for i in self.instruments]
        hints = "; ".join(note for note in notes if note)
        how = hints or "--crash-reproducer crash.qir writes what reproduces it"
        note = f"found after pass {where}; {how}"
        if isinstance(error, QdqcError):
            d = error.diagnostic
            if not hints and d.node is None and (d.file or d.position):
                return error  # about a file that the pass reads: the module plays no part in it
            return error.with_notes(note)
        message = f"pass {where} failed with {type(error).__name__}: {error}"
        return PassError(joined([message, f"note: {note}"]))


def run(
    module: Module,
    pipeline: str,
    *,
    instruments: Iterable[Instrument] = (),
    samples: Iterable[dict[str, Any]] | None = None,
    table: Table | None = None,
    qtable: Qtable | None = None,
) -> Module:
    """A new module: the given one after a pipeline such as ``@transform`` or ``canonicalize``.

    ``instruments`` look on. ``samples`` are dicts of arrays by input, for passes that measure
    the module on data; ``table`` is the calibration table and ``qtable`` the precision of nodes,
    for passes that read these.

    Raises QdqcError for a pipeline that can't be read and where a pass refuses the module.
    """
    from qdqc.pipeline.discovery import load_passes, pipelines

    load_passes()
    passes = resolve(pipeline, pipelines())
    out = clone(module)
    given: Any = {"samples": samples, "table": table, "qtable": qtable}
    PassManager(passes, instruments=instruments, **given).run(out)
    return out


def _verify(module: Module) -> None:
    from qdqc.ir.verify import verify

    errors = [d for d in verify(module) if d.severity is Severity.ERROR]
    if not errors:
        return
    first, *others = errors
    notes = [f"also: {d.render().partition(chr(10))[0]}" for d in others[:_MORE]]
    if len(others) > _MORE:
        notes.append(f"and {len(others) - _MORE} more")
    raise QdqcError(
        first.message,
        node=first.node,
        loc=first.loc,
        file=first.file,
        notes=[*first.notes, *notes],
    )


def _count(changes: object, pass_: Pass) -> int:
    """The number of changes that a pass returned. Raises QdqcError for anything else."""
    if isinstance(changes, int):
        return changes
    kind = type(changes).__name__
    note = "a pass returns the number of its changes"
    message = f"pass '{pass_.name}' returned a {kind}, not a number"
    raise QdqcError(message, file=place_of(pass_.run), notes=[note])


def _check_claim(module: Module, before: Snapshot | None, done: PassRun) -> None:
    """A pass that counts no change must leave the module as it was."""
    if done.changes == 0 and snapshot(module) != before:
        raise QdqcError(
            f"pass '{done.name}' said that it changed nothing, but it changed the module",
            notes=[
                "a pass returns the number of its changes; --print-ir-diff shows what it did",
            ],
        )


def _to_stderr(warning: Diagnostic) -> None:
    sys.stderr.write(warning.render() + "\n")
