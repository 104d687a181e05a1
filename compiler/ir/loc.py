"""Where a node comes from: the ONNX nodes that it stands for, and its place in a text."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["UNKNOWN", "Loc", "Position"]


@dataclass(frozen=True)
class Position:
    """A place in a text: line and column count from 1, ``text`` is the whole line."""

    file: str
    line: int
    column: int
    text: str = ""
    width: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Loc:
    """Names of the ONNX nodes that a node replaces, in graph order.

    The position is where a parser read the node; it is no part of equality, so a module
    equals what its text reads back as.
    """

    names: tuple[str, ...] = ()
    position: Position | None = field(default=None, compare=False)

    def merge(self, *others: Loc) -> Loc:
        """All names of all locations once, in order; the first position that is known."""
        names = dict.fromkeys(n for loc in (self, *others) for n in loc.names)
        positions = (loc.position for loc in (self, *others) if loc.position is not None)
        return Loc(tuple(names), next(positions, None))


UNKNOWN = Loc()
