"""What a command says of an error, and the exit code that it leaves with."""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Iterator
from typing import NamedTuple, TextIO

from qdqc.diagnostics import (
    EXIT_INPUT,
    EXIT_INTERNAL,
    EXIT_INTERRUPTED,
    Lines,
    QdqcError,
    Stopped,
    joined,
    visible,
)
from qdqc.tools.parameters import as_options
from qdqc.user_files import fault_in_user_file

__all__ = ["Failure", "failure_of", "write_line"]

_USER_ERRNOS = frozenset(
    getattr(errno, name, None)
    for name in (
        "EACCES",
        "EDQUOT",
        "EFBIG",
        "EIO",
        "EISDIR",
        "EMFILE",
        "ENAMETOOLONG",
        "ENOENT",
        "ENOSPC",
        "ENOTDIR",
        "EPERM",
        "EROFS",
    )
)
_NEXT_STEPS = {
    errno.ENOSPC: "free space on the disk, or write to another one",
    errno.EACCES: "check the permissions of the file and of its folder",
    errno.EPERM: "check the permissions of the file and of its folder",
    errno.ENOENT: "check the path",
    errno.EROFS: "the disk is read-only: write to another folder",
}


class Failure(NamedTuple):
    """The lines that people see, and the exit code."""

    text: Lines
    code: int


def failure_of(command: str, error: BaseException, *, traced: bool = False) -> Failure:
    """What is said of an error that ends a command.

    ``traced`` wants the traceback of what fails in a user's file as well.
    """
    if isinstance(error, QdqcError):
        return Failure(error.diagnostic.render(), EXIT_INPUT)
    if isinstance(error, Stopped):
        return Failure(joined([str(error)]), error.code)
    users = fault_in_user_file(error)
    if users is not None:
        shown = [*_traced(error)] if traced else []
        return Failure(joined([*shown, users.diagnostic.render()]), EXIT_INPUT)
    if isinstance(error, MemoryError):
        return Failure(_out_of_memory(error), EXIT_INPUT)
    if isinstance(error, KeyboardInterrupt):
        return Failure(joined([str(error) or "interrupted"]), EXIT_INTERRUPTED)
    if isinstance(error, OSError) and error.errno in _USER_ERRNOS:
        return Failure(_system(error), EXIT_INPUT)
    return Failure(_internal(command, error), EXIT_INTERNAL)


def write_line(stream: TextIO, text: str) -> None:
    """Write a line, or Lines, with the library's parameters spelled as options.

    What stands before it in the other stream is written before it.
    """
    (sys.stderr if stream is sys.stdout else sys.stdout).flush()
    stream.write(as_options(visible(text)) + "\n")


def _system(error: OSError) -> Lines:
    place = f"{error.filename}: " if error.filename else ""
    step = _NEXT_STEPS.get(error.errno or 0, "check the path and the system's limits")
    return joined([f"{place}error: {error.strerror or error}", f"note: {step}"])


def _out_of_memory(error: MemoryError) -> Lines:
    detail = f": {error}" if str(error) else ""
    note = "note: use smaller inputs or smaller batches"
    return joined([f"error: not enough memory{detail}", note])


def _internal(command: str, error: BaseException) -> Lines:
    return joined(
        [
            *_traced(error),
            f"internal error in {command}: this is a defect, not your input",
            "note: run it again with --crash-reproducer crash.qir and report that file and this",
        ]
    )


def _traced(error: BaseException) -> Iterator[str]:
    """The lines of a traceback, in which no text of an error or a path makes lines of its own."""
    if error.__cause__ is not None:
        yield from _traced(error.__cause__)
        yield "The above exception was the direct cause of the following exception:"
    yield "Traceback (most recent call last):"
    for frame in traceback.extract_tb(error.__traceback__):
        yield f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}'
        if frame.line:
            yield f"    {frame.line}"
    message = error.args[0] if error.args and isinstance(error.args[0], Lines) else str(error)
    yield from f"{type(error).__name__}: {visible(message)}".split("\n")
