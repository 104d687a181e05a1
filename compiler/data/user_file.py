"""Python files of the user: loaded by their path, their errors reported with the line."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from qdqc.diagnostics import QdqcError

__all__ = ["failed", "function_of", "loaded"]


def loaded(path: Path, what: str) -> ModuleType:
    """The user's file as a module; its folder is on the path while it loads and runs.

    ``what`` says what the file gives. Raises QdqcError where it can't be loaded.
    """
    spec = importlib.util.spec_from_file_location(f"user_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise failed(path, error, what) from error
    return module


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

    def called(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except QdqcError:
            raise
        except (Exception, SystemExit) as error:
            raise failed(file, error, what) from error

    return called


def failed(path: Path, error: BaseException, what: str) -> QdqcError:
    """The error of a user's file, at the last line of that file that was running."""
    whole = str(path.absolute())  # as a module's code is called, however the path was given
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == whole]
    line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else None
    place = line or (lines[-1] if lines else None)
    return QdqcError(
        f"{what} fails: {type(error).__name__}: {error}",
        file=str(path) if place is None else f"{path}:{place}",
        notes=[f"python {path} shows more, where it calls the function itself"],
    )
