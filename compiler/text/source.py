"""The text that is being read, and errors that point into it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Protocol

from qdqc.diagnostics import QdqcError
from qdqc.ir.loc import Loc, Position

__all__ = ["Place", "Source"]


class Place(Protocol):
    """What the lexer says of a token's place: line and column count from 1."""

    @property
    def line(self) -> int | None: ...
    @property
    def column(self) -> int | None: ...


class Source:
    """A text with the name of its file."""

    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file

    @cached_property
    def lines(self) -> list[str]:
        return self.text.split("\n")

    def position(self, place: Place, width: int = 1) -> Position:
        """The place with its line of text, for carets."""
        line, column = place.line or 1, place.column or 1
        text = self.lines[line - 1] if line <= len(self.lines) else ""
        return Position(self.file, line, column, text, width)

    def error(
        self, message: str, place: Place, *, node: str | None = None, notes: Iterable[str] = ()
    ) -> QdqcError:
        """An error with a caret under the token."""
        width = len(place) if isinstance(place, str) and "\n" not in place else 1
        loc = Loc(position=self.position(place, max(1, width)))
        return QdqcError(message, node=node, loc=loc, notes=notes)
