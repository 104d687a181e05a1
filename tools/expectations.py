"""Diagnostics that a test file expects of itself: ``// expected-error@+1 {{part of the text}}``.

Kinds are error, warning and note; the place is ``@+1``, ``@-1``, ``@below``, ``@above`` (the
next line that expects nothing), the same line without a place, or ``@unknown`` for a diagnostic
without a line. Every error and warning must be expected, and every expectation met; notes may be.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from qdqc.diagnostics import Diagnostic, Lines, Severity, joined

__all__ = ["Expectation", "find_expectations", "mismatches"]

_EXPECTED = re.compile(
    r"expected-(?P<kind>error|warning|note)(?P<re>-re)?"
    r"(?:@(?P<place>[+-]\d+|above|below|unknown))?\s*\{\{(?P<text>.*?)\}\}"
)


@dataclass(frozen=True)
class Expectation:
    """One expected diagnostic; ``line`` is None where none is known."""

    severity: Severity
    pattern: str
    line: int | None
    written: int

    def fits(self, severity: Severity, message: str, line: int | None) -> bool:
        same = severity is self.severity and line == self.line
        return same and re.search(self.pattern, message) is not None


def find_expectations(text: str) -> list[Expectation]:
    """The expectations of a text; lines count from 1."""
    lines = text.split("\n")
    out: list[Expectation] = []
    for number, line in enumerate(lines, 1):
        comment = line.partition("//")[2]
        for match in _EXPECTED.finditer(comment):
            pattern = match["text"] if match["re"] else re.escape(match["text"])
            at = _place(match["place"], number, lines)
            out.append(Expectation(Severity(match["kind"]), pattern, at, number))
    return out


def mismatches(expected: Sequence[Expectation], diagnostics: Sequence[Diagnostic]) -> list[Lines]:
    """What was expected and did not come, and what came unexpected: one text each."""
    open_ = list(expected)
    out: list[Lines] = []
    for diagnostic in diagnostics:
        line = diagnostic.position.line if diagnostic.position else None
        about = f"'{diagnostic.node}': " if diagnostic.node else ""
        if not _take(open_, diagnostic.severity, about + diagnostic.message, line):
            out.append(Lines(f"unexpected {diagnostic.severity.value}: {diagnostic.render()}"))
        for note in diagnostic.notes:
            _take(open_, Severity.NOTE, note, line)
    for left in open_:
        missing = f"line {left.written}: the {left.severity.value} expected here did not come"
        out.append(joined([missing]))
    return out


def _take(expected: list[Expectation], severity: Severity, message: str, line: int | None) -> bool:
    for one in expected:
        if one.fits(severity, message, line):
            expected.remove(one)
            return True
    return False


def _place(place: str | None, number: int, lines: Sequence[str]) -> int | None:
    if place is None:
        return number
    if place == "unknown":
        return None
    if place in ("above", "below"):
        step = 1 if place == "below" else -1
        number += step
        while 0 < number <= len(lines) and _EXPECTED.search(lines[number - 1].partition("//")[2]):
            number += step
        return number
    return number + int(place)
