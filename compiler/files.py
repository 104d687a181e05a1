"""Files: written whole or not at all, and never over what was read; texts read."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, TypeAlias

from qdqc.diagnostics import QdqcError
from qdqc.scratch import aside_of, beside, prune_aside, prune_beside

__all__ = [
    "Content",
    "explained",
    "read_text",
    "refuse_inputs",
    "refuse_unwritable",
    "write_outputs",
    "write_together",
    "write_whole",
]

PathLike: TypeAlias = str | os.PathLike[str]
Content: TypeAlias = str | bytes | Callable[[BinaryIO], object]
"""What a file holds: text, bytes, or what writes them into an open file."""


def read_text(path: PathLike, what: str, step: str) -> str:
    """The text of a UTF-8 file. Raises QdqcError that says ``what`` can't be read, and ``step``."""
    try:
        return Path(path).read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else "it is not text"
        message = f"can't read the {what}: {reason}"
        raise QdqcError(message, file=str(path), notes=[step]) from error


def write_whole(path: PathLike, content: Content, inputs: Iterable[PathLike] = ()) -> None:
    """Write a file so that readers see the old one or all of the new one.

    A link stays and leads to the new file; a device or a pipe is written to. Raises QdqcError
    where the path is one of the ``inputs`` or can't be written.
    """
    refuse_inputs([path], inputs)
    with explained(Path(path)):
        target = Path(path)
        if _is_stream(target):  # /dev/stdout is a link that leads to no path
            with target.open("wb") as file:
                _fill(file, content)
            return
        target = target.resolve()
    write_together([(target, content)])


def write_outputs(files: Sequence[tuple[Path, Content]]) -> None:
    """Write files that people named, together; each as ``write_whole`` does. Raises QdqcError."""
    streams = [path for path, _ in files if _is_stream(path)]
    write_together([(path.resolve(), content) for path, content in files if path not in streams])
    for path, content in files:
        if path in streams:
            write_whole(path, content)


def write_together(files: Sequence[tuple[Path, Content]]) -> None:
    """Write files that belong together: they appear together or not at all.

    All are complete before the first is put in its place, and whatever goes wrong leaves the
    folders as they were. The last one is what people name: where a process is killed between two
    of them it is missing, and what it was before stands beside its place. A link is replaced, never
    followed: a name that was derived from another may lead anywhere. Raises QdqcError.
    """
    with contextlib.ExitStack() as opened:
        written: list[tuple[Path, Path]] = []
        for path, content in files:
            prune_beside(path)
            with explained(path):
                _refuse_others(path)
                fresh, file = opened.enter_context(beside(path))
                _fill(file, content)
                file.flush()
                _keep_mode(file, path)
                os.fsync(file.fileno())
                written.append((fresh, path))
        if written:
            _put_in_place(written)


def _put_in_place(written: Sequence[tuple[Path, Path]]) -> None:
    """Rename complete files, each to the path behind it: all of them or none."""
    if len(written) == 1:
        ((fresh, path),) = written
        with explained(path):
            fresh.replace(path)
        return
    aside = {path: aside_of(path) for _, path in written if os.path.lexists(path)}
    try:
        for path, old in reversed(aside.items()):
            with explained(path):
                path.rename(old)
        for fresh, path in written:
            with explained(path):
                fresh.replace(path)
    except BaseException:  # a signal may have come between any two steps
        for fresh, path in written:
            if not os.path.lexists(fresh):
                path.unlink(missing_ok=True)
        for path, old in aside.items():
            if os.path.lexists(old):
                old.replace(path)
        raise
    for _, path in written:
        prune_aside(path)


def refuse_inputs(outputs: Iterable[PathLike], inputs: Iterable[PathLike]) -> None:
    """Raises QdqcError when an output is one of the inputs, by whatever path."""
    read = list(inputs)
    for output in outputs:
        for given in read:
            same = os.path.abspath(output) == os.path.abspath(given)
            with contextlib.suppress(OSError):
                same = same or os.path.samefile(output, given)
            if same and not _is_stream(Path(output)):
                raise QdqcError(
                    f"the output '{output}' is also an input",
                    notes=["give the output another name; inputs are never written over"],
                )


def refuse_unwritable(outputs: Iterable[PathLike]) -> None:
    """What is known before the work: raises QdqcError when an output can't be written.

    Its folder must be there and let files be made in it, and it must not be a folder itself.
    """
    for output in outputs:
        path = Path(output)
        target = path if _is_stream(path) else path.resolve()
        code = None
        if target.is_dir():
            code = errno.EISDIR
        elif not target.parent.is_dir():
            code = errno.ENOTDIR if target.parent.exists() else errno.ENOENT
        elif not os.access(target if _is_stream(target) else target.parent, os.W_OK):
            code = errno.EACCES
        if code is not None:
            raise _explain(OSError(code, os.strerror(code)), path)


def _fill(file: BinaryIO, content: Content) -> None:
    if callable(content):
        content(file)
    else:
        file.write(content.encode() if isinstance(content, str) else content)


def _keep_mode(file: BinaryIO, path: Path) -> None:
    """Give the new file the permissions of the one that it replaces."""
    if path.is_file() and not path.is_symlink():
        os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))


def _refuse_others(path: Path) -> None:
    """A folder or a device is nothing that may be replaced by a file."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if _is_stream(path):
        raise OSError(errno.EINVAL, "it is a device or a pipe")


def _is_stream(path: Path) -> bool:
    """Whether it is a device or a pipe, which can't be replaced."""
    with contextlib.suppress(OSError):
        mode = path.stat().st_mode
        return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
    return False


@contextlib.contextmanager
def explained(path: Path) -> Generator[None]:
    """Errors of the file system within the block become a QdqcError about ``path``."""
    try:
        yield
    except OSError as error:
        raise _explain(error, path) from error


def _explain(error: OSError, path: Path) -> QdqcError:
    reason = error.strerror or str(error)
    if not path.parent.exists():
        reason, step = f"there is no folder '{path.parent}'", "make the folder first"
    elif not path.parent.is_dir():
        reason, step = f"'{path.parent}' is a file, not a folder", "choose another folder"
    elif path.is_dir():
        reason, step = "it is a folder", "give the name of a file in it"
    else:
        step = "choose a path that can be written, or free the disk"
    return QdqcError(f"can't write the file: {reason}", file=str(path), notes=[step])
