"""Bytes that lie in files and not in memory: mapped where they are, or written out to be mapped.

A mapped buffer knows its file, so that a runtime can map it too instead of being handed a copy.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qdqc.diagnostics import QdqcError
from qdqc.scratch import process_folder

__all__ = ["check_whole", "map_file", "place_of", "spilled"]

Buffer = npt.NDArray[np.uint8]

KEPT = 64 << 20
"""Bytes of constants that passes made and that stay in memory; what is more goes to a file."""

_SMALLEST = 1 << 16
"""Fewer bytes are not worth a file of their own."""


class _Mapped(mmap.mmap):
    """A whole file, and what it was when it was mapped."""

    path: Path
    identity: tuple[int, int]
    address: int


def map_file(handle: int, path: Path) -> Buffer:
    """The bytes of an open file, read from the disk when they are looked at. Raises OSError."""
    status = os.fstat(handle)
    if not status.st_size:
        return np.zeros(0, np.uint8)
    view = _Mapped(handle, 0, access=mmap.ACCESS_READ)
    buffer = np.frombuffer(view, np.uint8)
    view.path, view.identity = path.absolute(), (status.st_dev, status.st_ino)
    view.address = buffer.ctypes.data
    return buffer


def check_whole(buffer: Buffer) -> None:
    """Raises QdqcError where the mapped file behind a buffer was cut short since.

    Bytes behind the end of a file can't be read: the system ends a process that looks at them.
    A file that is cut short between this look and the reading still does that.
    """
    view = _mapped(buffer)
    if view is not None and view.size() < len(view):
        raise QdqcError(
            f"the file was cut short while it was read: {view.size()} of {len(view)} bytes",
            file=str(view.path),
            notes=["make it again, and let nothing write to it while a command runs"],
        )


def place_of(buffer: Buffer) -> tuple[Path, int] | None:
    """The file that holds these bytes, and where they begin in it.

    None for what is not mapped, and where another file stands in that place by now.
    """
    view = _mapped(buffer)
    if view is None or not buffer.size:
        return None
    try:
        status = view.path.stat()
    except OSError:
        return None
    if (status.st_dev, status.st_ino) != view.identity or status.st_size < len(view):
        return None
    return view.path, buffer.ctypes.data - view.address


def spilled(buffer: Buffer) -> Buffer:
    """The same bytes, in a temporary file that is mapped once ``KEPT`` bytes are in memory.

    They stay in memory where they are few, lie in a file already, or the disk has no room.
    """
    size = buffer.nbytes
    if size < _SMALLEST or _mapped(buffer) is not None:
        return buffer
    if _in_memory.bytes + size <= KEPT:
        _in_memory.count(buffer)
        return buffer
    with contextlib.suppress(OSError):
        return _written_out(buffer)
    return buffer


def _mapped(buffer: Buffer) -> _Mapped | None:
    base: Any = buffer
    while isinstance(base, np.ndarray):
        base = base.base
    whole = base.obj if isinstance(base, memoryview) else base
    return whole if isinstance(whole, _Mapped) else None


class _InMemory:
    """Bytes of living buffers that were counted."""

    def __init__(self) -> None:
        self.bytes = 0

    def count(self, buffer: Buffer) -> None:
        owner = buffer.base if isinstance(buffer.base, np.ndarray) else buffer
        weakref.finalize(owner, self._gone, buffer.nbytes).atexit = False
        self.bytes += buffer.nbytes

    def _gone(self, size: int) -> None:
        self.bytes -= size


_in_memory = _InMemory()


def _written_out(buffer: Buffer) -> Buffer:
    handle, name = tempfile.mkstemp(dir=_folder(os.getpid()))
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(buffer.data)
        with open(name, "rb") as source:
            view = map_file(source.fileno(), Path(name))
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
    owner = _mapped(view)
    assert owner is not None
    weakref.finalize(owner, _remove, name, os.getpid())
    return view


@functools.cache
def _folder(_: int) -> Path:
    """The folder of the process of that number alone, which goes with it."""
    return process_folder("weights")


def _remove(name: str, pid: int) -> None:
    if os.getpid() == pid:  # a forked child has the mapping, and not the file
        Path(name).unlink(missing_ok=True)
