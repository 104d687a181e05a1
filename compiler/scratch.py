"""Files and folders that are not meant to stay: each is locked while its process lives.

A killed process leaves them behind unlocked. Whoever comes next removes what nobody locks, of its
own user alone. Where the system has no such locks nothing is known to be left over, and stays.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import BinaryIO

__all__ = [
    "TOKEN",
    "aside_of",
    "beside",
    "process_folder",
    "prune_aside",
    "prune_beside",
    "prune_scratch",
    "remove_left_over",
    "scratch_folder",
]

TOKEN = "[0-9a-f]{8}"
"""What tells apart the files of two runs, as a regular expression."""

_FOLDER = re.compile(rf"qdqc-[a-z]+-{TOKEN}")
_MARK = ".of-qdqc"
_NAME_BYTES = 40
"""So much of a name stands in that of the file beside it: a name has 255 bytes at most."""


@contextlib.contextmanager
def scratch_folder(what: str) -> Generator[Path]:
    """A folder in the system's own for the time of the block. Raises OSError."""
    path, lock = _made(what)
    try:
        yield path
    finally:
        try:
            _clear_away(path)
        finally:
            os.close(lock)


def process_folder(what: str) -> Path:
    """A folder in the system's own until this process ends. Raises OSError."""
    path, _ = _made(what)  # the lock stays open as long as the process
    atexit.register(_remove_own, path, os.getpid())
    return path


def _remove_own(path: Path, process: int) -> None:
    if os.getpid() == process:  # and not a copy of it
        _clear_away(path)


def prune_scratch() -> None:
    """Remove what killed processes left of ``scratch_folder``."""
    with contextlib.suppress(OSError):
        for name in os.listdir(_temporary()):
            if _FOLDER.fullmatch(name):
                remove_left_over(Path(_temporary(), name))


@contextlib.contextmanager
def beside(path: Path) -> Generator[tuple[Path, BinaryIO]]:
    """A new file beside a path, open and locked; it is gone behind the block. Raises OSError."""
    while True:
        file = path.with_name(f"{_stem(path)}.{secrets.token_hex(4)}.qdqc-tmp")
        stream = file.open("xb")
        try:
            if not _locked(stream.fileno(), wait=True) or _is_at(stream.fileno(), file):
                break
        except BaseException:
            stream.close()
            file.unlink(missing_ok=True)
            raise
        stream.close()  # somebody took it for a left over one before it was locked
    try:
        yield file, stream
    finally:
        file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # a full disk was reported before
            stream.close()


def aside_of(path: Path) -> Path:
    """A path beside another, for what lies there while something new takes its place."""
    return path.with_name(f"{_stem(path)}.{secrets.token_hex(4)}.qdqc-old")


def prune_aside(path: Path) -> None:
    """Remove what lay at a path before, here and in killed processes: it has been replaced."""
    for old in _like(path, "qdqc-old"):
        with contextlib.suppress(OSError):
            old.unlink()


def prune_beside(path: Path) -> None:
    """Remove what killed processes left of ``beside`` for this path."""
    for file in _like(path, "qdqc-tmp"):
        remove_left_over(file)


def _like(path: Path, suffix: str) -> list[Path]:
    """Files beside a path that were named after it."""
    pattern = re.compile(rf"{re.escape(_stem(path))}\.{TOKEN}\.{suffix}")
    try:
        return [path.with_name(n) for n in os.listdir(path.parent) if pattern.fullmatch(n)]
    except OSError:
        return []


def _stem(path: Path) -> str:
    return "." + path.name.encode(errors="surrogateescape")[:_NAME_BYTES].decode(errors="ignore")


def _temporary() -> str:
    """The system's folder, found without the file that tempfile writes there to try it."""
    named = [os.environ.get(name, "") for name in ("TMPDIR", "TEMP", "TMP")]
    for folder in (tempfile.tempdir, *named, "/tmp", "/var/tmp"):
        if folder and os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK):
            return os.path.abspath(os.fsdecode(folder))
    return tempfile.gettempdir()


def _made(what: str) -> tuple[Path, int]:
    """A new folder with its mark, and its lock."""
    while True:
        path = Path(_temporary(), f"qdqc-{what}-{secrets.token_hex(4)}")
        path.mkdir(mode=0o700)
        try:
            lock = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue  # somebody took it for a left over one before it was opened
        try:
            if not _locked(lock, wait=True) or _is_at(lock, path):
                (path / _MARK).touch()
                return path, lock
        except BaseException:
            _clear_away(path)
            os.close(lock)
            raise
        os.close(lock)  # somebody took it for a left over one before it was locked


def _clear_away(folder: Path) -> None:
    """Remove a folder of ours as far as can be; its mark goes last, for whoever finds the rest."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            inside = folder / name
            if inside.is_dir() and not inside.is_symlink():
                shutil.rmtree(inside, ignore_errors=True)
            elif name != _MARK:
                inside.unlink(missing_ok=True)
        (folder / _MARK).unlink(missing_ok=True)
        folder.rmdir()


def remove_left_over(path: Path) -> None:
    """Remove a file, or a folder that has our mark or nothing in it, where nobody locks it.

    The caller knows by its name that it is one of ours.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with contextlib.suppress(OSError):
        lock = os.open(path, flags)
        try:
            owner = getattr(os, "geteuid", lambda: os.fstat(lock).st_uid)()
            if os.fstat(lock).st_uid == owner and _locked(lock) and _is_at(lock, path):
                if not path.is_dir():
                    path.unlink()
                elif (path / _MARK).exists() or not os.listdir(path):
                    _clear_away(path)
        finally:
            os.close(lock)


def _locked(file: int, *, wait: bool = False) -> bool:
    """Lock an open file or folder until it is closed; False where that can't be."""
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def _is_at(file: int, path: Path) -> bool:
    """Whether an open file is still what lies at a path."""
    try:
        return os.path.samestat(os.fstat(file), os.lstat(path))
    except OSError:
        return False
