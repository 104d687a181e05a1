"""The crash reproducer: the module before the pass that failed, and the command to run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from qdqc.diagnostics import QdqcError, joined, visible
from qdqc.files import write_whole
from qdqc.ir.clone import clone
from qdqc.ir.graph import Module
from qdqc.pipeline.instrument import Instrument, Where
from qdqc.pipeline.pass_ import PassContext
from qdqc.pipeline.spec import print_pipeline

__all__ = ["CrashReproducer"]


class CrashReproducer(Instrument):
    """Keeps a copy of the module before each pass and writes it when the pass fails.

    The file begins with comments that give the command; its sidecar stands beside it. Nothing
    is written when all goes well.
    """

    def __init__(self, path: str | Path, plugins: Sequence[str | Path] = ()) -> None:
        self.path = Path(path)
        self.plugins = plugins
        self._before: Module | None = None

    def before(self, module: Module, where: Where, ctx: PassContext) -> None:
        self._before = clone(module)

    def failed(self, module: Module, where: Where, error: Exception) -> str | None:
        if self._before is None:
            return None
        words = ["qir_opt", str(self.path)]
        for plugin in self.plugins:
            words += ["--plugin", str(plugin)]
        command = f"{shlex.join(words)} --passes {_quoted(print_pipeline([where.pass_]))}"
        message = error.diagnostic.message if isinstance(error, QdqcError) else repr(error)
        comment = [
            f"The module before pass {where}, which failed:",
            visible(message),
            f"reproduce: {command}",
        ]
        try:
            self._write(self._before, comment)
        except QdqcError as problem:
            return f"no reproducer: {problem.diagnostic.message}"
        return f"reproduce: {command}"

    def _write(self, module: Module, comment: Sequence[str]) -> None:
        """The text behind its comments; the sidecar is put in place before it."""
        from qdqc.text.qir_files import save

        save(module, self.path)
        head = joined(f"// {line}".rstrip() for line in comment) + "\n"
        write_whole(self.path, head + self.path.read_text("utf-8"))


def _quoted(text: str) -> str:
    """In single quotes, as braces want them in a shell."""
    return shlex.quote(text) if "'" in text else f"'{text}'"
