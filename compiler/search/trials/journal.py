"""What a search has found so far, on disk, so that the same search goes on from there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from pathlib import Path
from typing import Any

__all__ = ["Journal"]

_KEEP = 30 * 24 * 3600
"""Seconds for which a journal is kept without being used."""
_SUFFIX = ".journal"


class Journal:
    """Findings by what they depend on: a line of JSON each, added as they come.

    ``key`` says what all of them depend on: model, samples, target, versions. Without a folder,
    or where it can't be used, findings live as long as the search. A line that was cut short
    counts for nothing.
    """

    def __init__(self, folder: Path | None, key: str) -> None:
        self.taken_up = 0
        self._findings: dict[str, Any] = {}
        self._path: Path | None = None
        if folder is None:
            return
        path = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:40]}{_SUFFIX}"
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _prune(folder)
            if path.exists():
                self._read(path.read_bytes())
            self._path = path
            self._add("")  # ends a line that a killed run began

    def get(self, entry: Any) -> Any:
        """What was found under an entry, a JSON value; None where nothing was."""
        return self._findings.get(_text(entry))

    def put(self, entry: Any, finding: Any) -> None:
        """Note what was found: numbers and texts, lists and dicts of them."""
        self._findings[_text(entry)] = finding
        self._add(json.dumps([_text(entry), finding]))

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
            with contextlib.suppress(ValueError, TypeError):
                entry, finding = json.loads(line)
                self._findings[str(entry)] = finding
        self.taken_up = len(self._findings)


def _text(entry: Any) -> str:
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()[:24]


def _prune(folder: Path) -> None:
    """Remove the journals that nobody has used for long."""
    now = time.time()
    for path in folder.glob(f"*{_SUFFIX}"):
        with contextlib.suppress(OSError):  # another run has just removed it
            if now - path.stat().st_mtime > _KEEP:
                path.unlink()
