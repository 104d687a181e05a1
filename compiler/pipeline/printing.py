"""Instruments that show the IR between passes: whole, as a diff, or as files in a folder."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qdqc.diagnostics import QdqcError, suggestion
from qdqc.files import write_whole
from qdqc.ir.graph import Module
from qdqc.pipeline.instrument import Instrument, PassRun, Where, Write
from qdqc.pipeline.pass_ import PASSES, Pass, PassContext

if TYPE_CHECKING:
    from qdqc.text.qir_files import SharedSidecar

__all__ = ["DumpIR", "PrintIR", "check_names"]


def check_names(names: Collection[str], switch: str) -> None:
    """Raises QdqcError for a name that is not a pass."""
    known = PASSES.names()
    for name in names:
        if name not in known:
            raise QdqcError(
                f"{switch}: unknown pass '{name}'{suggestion(name, known)}",
                notes=["--list-passes shows all passes"],
            )


class PrintIR(Instrument):
    """Prints the module before or after passes.

    ``before`` and ``after`` name passes; ``every`` stands for all of them. ``on_change`` prints
    after passes that changed the text, ``diff`` shows these changes as a unified diff.
    """

    def __init__(
        self,
        write: Write,
        *,
        before: Collection[str] = (),
        after: Collection[str] = (),
        every: bool = False,
        on_change: bool = False,
        diff: bool = False,
        elide: bool = False,
    ) -> None:
        self.write = write
        self.before_names = before
        self.after_names = after
        self.every = every
        self.on_change = on_change
        self.diff = diff
        self.elide = elide
        self._text = ""

    def begin(self, module: Module, passes: Sequence[Pass]) -> None:
        check_names(self.before_names, "--print-ir-before")
        check_names(self.after_names, "--print-ir-after")

    def before(self, module: Module, where: Where, ctx: PassContext) -> None:
        if where.pass_.name in self.before_names:
            self._print(f"before {where}", _text(module, self.elide))
        if self.on_change or self.diff:
            self._text = _text(module, elide=True)

    def after(self, module: Module, where: Where, run: PassRun, ctx: PassContext) -> None:
        self._show(module, where, f"after {where}")

    def failed(self, module: Module, where: Where, error: Exception) -> str | None:
        self._show(module, where, f"after {where}, which failed")
        return None

    def _show(self, module: Module, where: Where, head: str) -> None:
        changed = (self.on_change or self.diff) and _text(module, elide=True) != self._text
        named = self.every or where.pass_.name in self.after_names
        if named or (self.on_change and changed):
            self._print(head, _text(module, self.elide))
        if self.diff and changed:
            self._print(f"changes {head}", _diff(self._text, _text(module, elide=True)))

    def _print(self, head: str, text: str) -> None:
        self.write(f"// ----- IR {head} -----\n{text.rstrip()}\n")


class DumpIR(Instrument):
    """Writes the module before the first pass and after each one, as ``003_fuse-activation.qir``.

    All dumps share one sidecar in the folder; it is written again only when a pass has made
    new contents.
    """

    def __init__(self, folder: str | Path, *, elide: bool = False) -> None:
        self.folder = Path(folder)
        self.elide = elide
        self._count = 0

    def begin(self, module: Module, passes: Sequence[Pass]) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise QdqcError(
                f"--dump-ir: can't make the folder '{self.folder}': {error.strerror}",
                notes=["give a folder that can be made"],
            ) from error
        self._dump(module, "input")

    def after(self, module: Module, where: Where, run: PassRun, ctx: PassContext) -> None:
        self._dump(module, where.pass_.name)

    def failed(self, module: Module, where: Where, error: Exception) -> str | None:
        self._dump(module, f"{where.pass_.name}.failed")
        return None

    def _dump(self, module: Module, stem: str) -> None:
        plain = re.sub(r"[^\w.-]", "_", stem)  # a plugin may call its passes as it likes
        path = self.folder / f"{self._count:03}_{plain}.qir"
        self._count += 1
        if self.elide:
            write_whole(path, _text(module, elide=True))
        else:
            self._sidecar.save(module, path.name)

    @functools.cached_property
    def _sidecar(self) -> SharedSidecar:
        from qdqc.text.qir_files import SharedSidecar

        return SharedSidecar(self.folder)


def _text(module: Module, elide: bool) -> str:
    from qdqc.text.printer import print_module

    return print_module(module, elide=elide)


def _diff(before: str, after: str) -> str:
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), "before", "after", lineterm="", n=2
    )
    return "\n".join(lines)
