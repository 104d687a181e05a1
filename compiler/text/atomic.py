"""Files appear whole or not at all: written beside their place, then renamed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from compiler.diagnostics import QdqcError

__all__ = ["Writer", "replace_file", "replace_files", "writing"]

Writer = Callable[[BinaryIO], None]


@contextmanager
def writing(path: Path) -> Generator[None]:
    """Errors of the file system within the block become a QdqcError about ``path``."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise QdqcError(
            f"can't write '{path}': {reason}",
            notes=["nothing was changed; give another place for the output, or make room"],
        ) from None


def replace_file(path: Path, write: Writer) -> None:
    """Let ``write`` fill a file and put it in the place of ``path``. Raises QdqcError."""
    replace_files([(path, write)])


def replace_files(files: Sequence[tuple[Path, Writer]]) -> None:
    """As ``replace_file`` for several: all are complete before the first is put in place.

    Whatever goes wrong before that leaves the folder as it was.
    """
    written: list[tuple[Path, Path]] = []
    try:
        for path, write in files:
            with writing(path):
                _refuse_others(path)
                beside = path.with_name(f".{path.name[:80]}.{secrets.token_hex(4)}.tmp")
                with beside.open("xb") as file:
                    written.append((beside, path))
                    write(file)
                    file.flush()
                    os.fsync(file.fileno())
        for beside, path in written:
            with writing(path):
                beside.replace(path)
    finally:
        for beside, _ in written:
            beside.unlink(missing_ok=True)


def _refuse_others(path: Path) -> None:
    """A folder or a device is nothing that may be replaced by a file."""
    if path.exists() and not path.is_file():
        raise OSError(None, f"it is a {'folder' if path.is_dir() else 'device or a pipe'}")
