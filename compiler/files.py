"""Writing files: whole or not at all, and never over what was read."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from compiler.diagnostics import QdqcError

__all__ = ["refuse_inputs", "refuse_unwritable", "write_whole"]


def write_whole(
    path: str | os.PathLike[str],
    content: str | bytes | Callable[[Path], None],
    inputs: Iterable[str | os.PathLike[str]] = (),
) -> None:
    """Write a file so that readers see the old one or all of the new one.

    ``content`` is text, bytes, or a function that writes the file it is given. Raises QdqcError
    where the path is an input or can't be written.
    """
    refuse_inputs([path], inputs)
    target = Path(path)
    try:
        target = target.resolve()
        if _is_stream(target):
            _fill(target, content)
            return
        _replace(target, content)
    except OSError as error:
        raise _explain(error, Path(path)) from error


def refuse_inputs(
    outputs: Iterable[str | os.PathLike[str]], inputs: Iterable[str | os.PathLike[str]]
) -> None:
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


def refuse_unwritable(outputs: Iterable[str | os.PathLike[str]]) -> None:
    """What can be told before the work: raises QdqcError when an output can't be written.

    Its folder must be there and let files be made in it, and it must not be a folder itself.
    """
    for output in outputs:
        path = Path(output)
        target = path.resolve()
        code = None
        if target.is_dir():
            code = errno.EISDIR
        elif not target.parent.is_dir():
            code = errno.ENOTDIR if target.parent.exists() else errno.ENOENT
        elif not os.access(target if _is_stream(target) else target.parent, os.W_OK):
            code = errno.EACCES
        if code is not None:
            raise _explain(OSError(code, os.strerror(code)), path)


def _replace(target: Path, content: str | bytes | Callable[[Path], None]) -> None:
    if target.is_dir():
        raise IsADirectoryError(21, "it is a folder", str(target))
    handle, name = tempfile.mkstemp(prefix=f".{target.name[:64]}.", dir=target.parent)
    os.close(handle)
    temp = Path(name)
    try:
        _fill(temp, content)
        os.chmod(temp, _mode(target))
        with temp.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temp, target)
    except BaseException:
        temp.unlink(missing_ok=True)
        raise


def _fill(path: Path, content: str | bytes | Callable[[Path], None]) -> None:
    if isinstance(content, str):
        path.write_bytes(content.encode())
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content(path)


def _mode(target: Path) -> int:
    """Permissions of the file that is replaced, or those that a new file gets."""
    with contextlib.suppress(FileNotFoundError):
        return stat.S_IMODE(target.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _is_stream(path: Path) -> bool:
    """Whether it is a device or a pipe, which can't be replaced."""
    with contextlib.suppress(OSError):
        mode = path.stat().st_mode
        return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
    return False


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
