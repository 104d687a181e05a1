"""Lines for a terminal: names of models and files may hold anything."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["joined", "visible"]


def visible(text: str) -> str:
    """A text in one line, in which characters that no terminal shows are Python's escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def joined(lines: Iterable[str]) -> str:
    """Visible lines, one below the other."""
    return "\n".join(map(visible, lines))
