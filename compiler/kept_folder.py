"""Folders of ours in which findings are kept between runs: marked, and with own names alone.

A folder that people name may hold anything. What is kept lies in a folder of its own below it,
nothing is removed where our mark is missing, and there nothing but files of our names.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import time
from pathlib import Path

from qdqc.diagnostics import Diagnostic, QdqcError, Severity
from qdqc.files import write_whole
from qdqc.scratch import TOKEN, remove_left_over

__all__ = ["KeptFolder", "goes_on_without"]

_MARK = "CACHEDIR.TAG"
_MARKED = (
    b"Signature: 8a477f597d28d172789f06886806bc55\n"
    b"# qdqc keeps findings in this folder: any file in it may be removed at any time.\n"
)
"""The sign of a cache that backup tools know (bford.info/cachedir), and whose it is."""
_KEEP = 30 * 24 * 3600
"""Seconds for which a file is kept without being used."""
_DIGITS = 40
_LEFT_OVER = re.compile(rf"\.([0-9a-f]{{{_DIGITS}}}|{re.escape(_MARK)})\.{TOKEN}\.qdqc-tmp")
"""What ``write_whole`` writes before a file is put in its place."""


class KeptFolder:
    """``BASE/qdqc/WHAT`` for files of one suffix; the user's own cache is the base by default.

    Raises OSError where it can't be made or used, and where there is such a folder that is not
    ours.
    """

    def __init__(self, base: Path | None, what: str, suffix: str) -> None:
        self.path = (base or _users_cache()) / "qdqc" / what
        self._suffix = suffix
        self._own = re.compile(rf"[0-9a-f]{{{_DIGITS}}}{re.escape(suffix)}")
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self._is_ours():
            reason = "it holds files that are not qdqc's"
            raise FileExistsError(errno.EEXIST, reason, str(self.path))

    def file(self, key: str) -> Path:
        """The path of what depends on a key."""
        digest = hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()
        return self.path / f"{digest[:_DIGITS]}{self._suffix}"

    def prune(self, limit: int) -> None:
        """Remove what nobody has used for long, what killed runs left, and what is too much.

        ``limit`` is in bytes; what was used longest ago goes first.
        """
        now, taken = time.time(), 0
        for used, size, path in sorted(self._files(), reverse=True):
            taken += size
            if now - used > _KEEP or taken > limit:
                with contextlib.suppress(OSError):
                    path.unlink()

    def _files(self) -> list[tuple[float, int, Path]]:
        """When each of our files was used last, its size and its path."""
        files: list[tuple[float, int, Path]] = []
        for path in map(self.path.joinpath, os.listdir(self.path)):
            if _LEFT_OVER.fullmatch(path.name):
                remove_left_over(path)
            elif self._own.fullmatch(path.name):
                with contextlib.suppress(OSError):  # another run has just removed it
                    status = path.lstat()
                    files.append((status.st_mtime, status.st_size, path))
        return files

    def _is_ours(self) -> bool:
        """Whether the folder has our mark; one without it gets it if nothing else is in it."""
        mark = self.path / _MARK
        with contextlib.suppress(FileNotFoundError):
            return mark.read_bytes() == _MARKED
        names = os.listdir(self.path)
        if not all(self._own.fullmatch(n) or _LEFT_OVER.fullmatch(n) for n in names):
            return False
        write_whole(mark, _MARKED)
        return True


def goes_on_without(what: str, folder: Path | None, error: OSError | QdqcError) -> Diagnostic:
    """The warning that a folder can't be used."""
    is_located = isinstance(error, QdqcError)
    reason = error.diagnostic.message if is_located else error.strerror or str(error)
    message = f"{what} goes on without its cache: {reason}"
    notes = ("`cache` names another folder, `no_cache` does without one",)
    place = None if folder is None else str(folder)
    return Diagnostic(Severity.WARNING, message, file=place, notes=notes)


def _users_cache() -> Path:
    """``$XDG_CACHE_HOME``, or ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return Path(base) if base and Path(base).is_absolute() else Path("~/.cache").expanduser()
