"""Samples that can't be used: named and left out, up to a number that the user allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from qdqc.diagnostics import Diagnostic, QdqcError, Severity

__all__ = ["BadSamples"]

T = TypeVar("T")


class BadSamples:
    """Counts the samples that are left out, and stops at one more than ``limit``.

    ``warn`` gets each that is left out; who gives none offers no such choice to people.
    """

    def __init__(self, limit: int = 0, warn: Callable[[Diagnostic], object] | None = None) -> None:
        self._limit = limit
        self._warn = warn
        self.count = 0

    def tried(self, make: Callable[[], T]) -> T | None:
        """What ``make`` gives, or None where it refuses a sample and that is allowed.

        Raises QdqcError otherwise, with the reason and the way out.
        """
        try:
            return make()
        except QdqcError as error:
            self.count += 1
            if self.count > self._limit:
                if self._warn is None:
                    raise
                raise error.with_notes(self._way_out()) from error
            if self._warn is not None:
                reason = error.diagnostic
                message = f"left out: {reason.message}"
                self._warn(Diagnostic(Severity.WARNING, message, file=reason.file))
            return None

    def _way_out(self) -> str:
        if not self._limit:
            return "`max_bad` N leaves out up to N such samples"
        return f"{self._limit} are left out already, as many as `max_bad` allows"
