"""Diagnostics: one form and one renderer for the parser, the verifier, passes and the importer.

Anything that the user can put right ends in a ``QdqcError``: the commands print it without a
traceback and leave with exit code 1. Any other exception is a defect of qdqc (exit code 3).

Names of models, values and files may hold anything: line ends, escapes of a terminal, characters
that turn the direction of a text. ``visible`` and ``joined`` are the one way in which texts with
such names reach people; a text that did not go through them is escaped as one line.
"""

from __future__ import annotations

import difflib
import enum
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from qdqc.ir.loc import Loc, Position

__all__ = [
    "EXIT_INPUT",
    "EXIT_INTERNAL",
    "EXIT_INTERRUPTED",
    "EXIT_OK",
    "EXIT_USAGE",
    "Diagnostic",
    "Lines",
    "QdqcError",
    "Severity",
    "Stopped",
    "joined",
    "nearest",
    "suggestion",
    "visible",
]

EXIT_OK, EXIT_INPUT, EXIT_USAGE, EXIT_INTERNAL, EXIT_INTERRUPTED = 0, 1, 2, 3, 130


class Stopped(KeyboardInterrupt):
    """A signal asked the command to end; ``code`` is its exit code.

    A plain KeyboardInterrupt within a command was raised by somebody's code, not by a key.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Lines(str):
    """Text of several lines, each of which is visible: what ``joined`` makes."""

    __slots__ = ()


def visible(text: str) -> str:
    """A text in one line, in which what no terminal shows stands as Python's escapes.

    ``Lines`` are left as they are.
    """
    if isinstance(text, Lines) or text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def joined(lines: Iterable[str]) -> Lines:
    """Visible lines, one below the other."""
    return Lines("\n".join(map(visible, lines)))


class Severity(enum.Enum):
    """How bad it is: an error stops the command, a warning and a note do not."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Diagnostic:
    """A message with its place; ``node`` is the op's name as the text spells it."""

    severity: Severity
    message: str
    node: str | None = None
    loc: Loc | None = None
    file: str | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def position(self) -> Position | None:
        return None if self.loc is None else self.loc.position

    def render(self) -> Lines:
        """The text that people read: place, severity, message, source line, notes."""
        place = str(self.position) if self.position else self.file
        head = f"{place}: " if place else ""
        about = f"'{self.node}': " if self.node else ""
        lines = [f"{head}{self.severity.value}: {about}{self.message.rstrip()}"]
        if self.position and self.position.text.strip():
            lines += _pointed(self.position)
        if self.loc and self.loc.names:
            names = ", ".join(f'"{n}"' for n in self.loc.names)
            lines.append(f"note: ONNX node {names}")
        lines.extend(f"note: {note}" for note in self.notes)
        return joined(lines)


_LINE_LIMIT, _BEFORE = 200, 80
"""A longer line of source is shown around its caret alone, with so much before it."""


def _pointed(position: Position) -> list[str]:
    """The source line without its indent, and the caret below it."""
    text = position.text.strip()
    at = position.column - 1 - (len(position.text) - len(position.text.lstrip()))
    width = max(1, position.width)
    if len(text) > _LINE_LIMIT:
        start = max(0, at - _BEFORE)
        end = start + _LINE_LIMIT
        head, tail = "... " if start else "", " ..." if end < len(text) else ""
        text, at = head + text[start:end] + tail, at - start + len(head)
        width = max(1, min(width, len(text) - at))
    before, pointed = visible(text[:at]), visible(text[at : at + width])
    shown = f"      {before}{pointed}{visible(text[at + width :])}"
    return [shown, " " * (6 + len(before)) + "^" * max(1, len(pointed))]


class QdqcError(Exception):
    """The input can't be used as it is; says where, why, and what to do next."""

    def __init__(
        self,
        message: str,
        *,
        node: str | None = None,
        loc: Loc | None = None,
        file: str | None = None,
        notes: Iterable[str] = (),
    ) -> None:
        super().__init__(message)
        self.diagnostic = Diagnostic(Severity.ERROR, message, node, loc, file, tuple(notes))

    @classmethod
    def of(cls, diagnostic: Diagnostic) -> QdqcError:
        """The error that a diagnostic states."""
        d = diagnostic
        return cls(d.message, node=d.node, loc=d.loc, file=d.file, notes=d.notes)

    def with_notes(self, *notes: str) -> QdqcError:
        """The same error with further notes behind its own."""
        d = self.diagnostic
        return QdqcError.of(replace(d, notes=(*d.notes, *notes)))

    def __str__(self) -> str:
        return self.diagnostic.render()


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like the given one, or None when none comes near."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def suggestion(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the end of a message, or nothing."""
    match = nearest(name, known)
    return f"; did you mean '{match}'?" if match else ""
