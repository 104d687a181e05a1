"""Python files of the user: loaded by their path, their errors reported with the line."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from qdqc.diagnostics import Lines, QdqcError, Stopped

__all__ = [
    "brief",
    "failed",
    "fault_in_user_file",
    "function_of",
    "is_users",
    "loaded",
    "place_of",
    "summary",
    "take_note",
]

_NOTE = "note: "
_LONGEST = 80
_loaded: dict[str, str] = {}
"""By the absolute path of each file that was loaded its path as it was given."""


def loaded(path: str | Path, what: str) -> ModuleType:
    """The user's file as a module; its folder is on the path while it loads and runs.

    ``what`` says what the file gives. Raises QdqcError, located, where it can't be loaded.
    """
    file = Path(path)
    spec = importlib.util.spec_from_file_location(f"user_{file.stem}", file.resolve())
    if spec is None or spec.loader is None:
        raise QdqcError("this is no Python file: its name ends in .py", file=str(path))
    module = importlib.util.module_from_spec(spec)
    folder = str(file.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    take_note(path)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        if not is_users(error):
            raise
        raise failed(file, error, what) from error
    return module


def take_note(path: str | Path) -> None:
    """From now on errors in the code of this file are the user's, wherever they come up."""
    _loaded[str(Path(path).resolve())] = str(path)


def function_of(path: str | Path, names: tuple[str, ...], what: str) -> Callable[..., Any]:
    """The first function of these names in a user's file; what it raises is reported as an error.

    Raises QdqcError where there is no such file or function.
    """
    file = Path(path)
    if file.suffix != ".py" or not file.is_file():
        note = f"give a file with 'def {names[0]}(...)'"
        raise QdqcError("there is no such Python file", file=str(path), notes=[note])
    module = loaded(file, what)
    function = next((getattr(module, n) for n in names if callable(getattr(module, n, None))), None)
    if function is None:
        note = f"write 'def {names[0]}(...)' in it"
        raise QdqcError(f"it has no function '{names[0]}'", file=str(path), notes=[note])

    @functools.wraps(function, updated=())
    def called(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except BaseException as error:
            if not is_users(error):
                raise
            raise failed(file, error, what) from error

    return called


def place_of(function: Callable[..., Any]) -> str | None:
    """The file and line of a user's function, for what is wrong with what it gave."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    path = _loaded.get(getattr(code, "co_filename", ""))
    return None if path is None else f"{path}:{getattr(code, 'co_firstlineno', 1)}"


def is_users(error: BaseException) -> bool:
    """Whether an error is of the user's code: neither a located one nor a signal.

    Where Python's own handler answers Ctrl-C, nobody can tell it from a KeyboardInterrupt of the
    code.
    """
    if isinstance(error, KeyboardInterrupt):
        by_key = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        return not isinstance(error, Stopped) and not by_key
    is_located = isinstance(error, QdqcError) and bool(
        error.diagnostic.file or error.diagnostic.loc
    )
    return not is_located


def failed(path: str | Path, error: BaseException, what: str) -> QdqcError:
    """The error of a user's file, at the last line of that file that was running."""
    key = str(Path(path).resolve())
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == key else None
    lines = [number for file, number in _places(error) if file == key]
    return _explained(str(path), line or (lines[-1] if lines else None), error, what)


def fault_in_user_file(error: BaseException) -> QdqcError | None:
    """The error as one of a user's file, where code of such a file was running; else None.

    Notes of an error that was made of it stay with it.
    """
    cause: BaseException | None = error
    notes: list[str] = []
    while cause is not None:
        places = [(file, line) for file, line in _places(cause) if file in _loaded]
        if places and is_users(cause):
            file, line = places[-1]
            return _explained(_loaded[file], line, cause, "the file", notes)
        if cause.args and isinstance(cause.args[0], Lines):
            lines = cause.args[0].split("\n")
            notes += [n.removeprefix(_NOTE) for n in lines if n.startswith(_NOTE)]
        cause = cause.__cause__
    return None


def _explained(
    path: str, line: int | None, error: BaseException, what: str, notes: Iterable[str] = ()
) -> QdqcError:
    return QdqcError(
        f"{what} fails: {summary(error)}",
        file=path if line is None else f"{path}:{line}",
        notes=[*notes, f"python {path} shows more, where it calls the function itself"],
    )


def _places(error: BaseException) -> Iterator[tuple[str, int]]:
    """Files and lines that were running, the outermost first."""
    for frame, line in traceback.walk_tb(error.__traceback__):
        yield frame.f_code.co_filename, line


def summary(error: BaseException) -> str:
    """The class of an error and what it says, unless that fails as well.

    Ours are known by what they say.
    """
    if isinstance(error, QdqcError):
        return error.diagnostic.message
    try:
        text = str(error)
    except Exception as another:
        text = f"its text fails with {type(another).__name__}"
    return f"{type(error).__name__}: {text}"


def brief(value: object) -> str:
    """A value of the user's in a few words, whatever it is."""
    try:
        text = repr(value)
    except Exception:
        return f"a {type(value).__name__}"
    return text if len(text) <= _LONGEST else f"a {type(value).__name__}: {text[:_LONGEST]}..."
