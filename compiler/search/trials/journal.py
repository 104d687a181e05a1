"""What a search has found so far, on disk, so that the same search goes on from there."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from qdqc.kept_folder import KeptFolder

__all__ = ["SUFFIX", "Journal"]

SUFFIX = ".journal"
LIMIT = 1 << 28
"""Bytes that all journals may take."""

FindingT = TypeVar("FindingT")


class Journal:
    """Findings by what they depend on: a line each, added as they come.

    ``key`` says what all of them depend on: model, samples, target, versions. Without a folder,
    or where it can't be used, findings live as long as the search. A line is a checksum over the
    key and the JSON behind it: one that was cut short or changed counts for nothing.
    """

    def __init__(self, folder: KeptFolder | None, key: str) -> None:
        self.taken_up = 0
        self._findings: dict[str, Any] = {}
        self._key = hashlib.sha256(key.encode(errors="surrogateescape"))
        self._path: Path | None = None
        if folder is None:
            return
        path = folder.file(key)
        with contextlib.suppress(OSError):
            folder.prune(LIMIT)
            if path.exists():
                self._read(path.read_bytes())
            self._path = path
            self._add("")  # ends a line that a killed run began

    def get(self, entry: Any, read: Callable[[Any], FindingT]) -> FindingT | None:
        """What was found under an entry, a JSON value; None where nothing was.

        ``read`` makes it of plain data, and raises TypeError or ValueError where these are of
        another form: they count for nothing.
        """
        try:
            finding = self._findings.get(_text(entry))
            return None if finding is None else read(finding)
        except (TypeError, ValueError):
            return None

    def put(self, entry: Any, finding: Any) -> None:
        """Note what was found: numbers and texts, lists and dicts of them."""
        self._findings[_text(entry)] = finding
        text = json.dumps([_text(entry), finding])
        self._add(f"{self._checksum(text)} {text}")

    def _add(self, line: str) -> None:
        if self._path is None:
            return
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError:
            self._path = None

    def _read(self, content: bytes) -> None:
        for line in content.decode("utf-8", errors="replace").splitlines():
            checksum, _, text = line.partition(" ")
            if text and checksum == self._checksum(text):
                entry, finding = json.loads(text)
                self._findings[entry] = finding
        self.taken_up = len(self._findings)

    def _checksum(self, text: str) -> str:
        digest = self._key.copy()
        digest.update(text.encode())
        return digest.hexdigest()[:16]


def _text(entry: Any) -> str:
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()[:24]
