"""Finding passes: packages under the entry-point group ``qdqc.passes``, and plugin files.

A package holds one pass a file, named as the pass; its ``PIPELINES`` maps names of pipelines
to pipeline strings. A plugin is one Python file, which may define ops, targets, calibration
methods and recipes as well: whatever has a registry enters it by being defined.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import pkgutil
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from qdqc.diagnostics import QdqcError, suggestion
from qdqc.user_files import is_users, summary, take_note

__all__ = ["GROUP", "load_passes", "load_plugin", "pipelines"]

GROUP = "qdqc.passes"

_OURS = "qdqc.passes"
_pipelines: dict[str, str] = {}
_loaded: dict[str, ModuleType] = {}


def load_passes(plugins: Iterable[str | Path] = ()) -> None:
    """Import all installed passes, then the plugin files. Loading again changes nothing.

    Raises QdqcError where a package or a plugin can't be loaded.
    """
    if GROUP not in _loaded:
        _import_all(importlib.import_module(_OURS))
        for entry in importlib.metadata.entry_points(group=GROUP):
            if entry.value != _OURS:
                _load_foreign(entry.name, entry.value)
        _loaded[GROUP] = sys.modules[__name__]
    for plugin in plugins:
        load_plugin(plugin)


def pipelines() -> dict[str, str]:
    """The named pipelines of everything that was loaded, without their ``@``."""
    return dict(_pipelines)


def load_plugin(path: str | Path) -> ModuleType:
    """Import a Python file that defines passes, or anything else that has a registry.

    Raises QdqcError, located in the file, when it is missing or fails.
    """
    file = Path(path)
    key = str(file.resolve())
    if key in _loaded:
        return _loaded[key]
    if not file.is_file():
        near = suggestion(file.name, [p.name for p in file.parent.glob("*.py")])
        raise QdqcError(f"the plugin '{path}' is not a file{near}", file=str(path))
    name = f"qdqc_plugin_{file.stem}_{hashlib.sha256(key.encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, key)
    if spec is None or spec.loader is None:
        raise QdqcError("a plugin is a Python file; its name ends in .py", file=str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # annotations of the options are resolved through sys.modules
    take_note(path)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if not (isinstance(error, QdqcError) or is_users(error)):
            raise
        raise _explain(error, key, str(path)) from error
    _loaded[key] = module
    _take_pipelines(module)
    return module


def _load_foreign(name: str, value: str) -> None:
    """A user's package; whatever it raises is reported as an error of that package."""
    try:
        _import_all(importlib.import_module(value))
    except BaseException as error:
        if not (isinstance(error, QdqcError) or is_users(error)):
            raise
        about = f"passes of '{value}' (entry point '{name}')"
        raise _explain(error, value.replace(".", "/"), about) from error


def _import_all(package: ModuleType) -> None:
    for file in pkgutil.iter_modules(getattr(package, "__path__", [])):
        if not file.name.startswith("_"):
            importlib.import_module(f"{package.__name__}.{file.name}")
    _take_pipelines(package)


def _take_pipelines(module: ModuleType) -> None:
    pipelines: object = getattr(module, "PIPELINES", {})
    if not isinstance(pipelines, dict) or not all(
        isinstance(word, str) for pair in pipelines.items() for word in pair
    ):
        raise QdqcError(
            f"PIPELINES of '{module.__name__}' is no dict of names and pipelines",
            file=module.__file__,
            notes=['such as PIPELINES = {"mine": "canonicalize,my-pass"}'],
        )
    for name, text in pipelines.items():
        if _pipelines.setdefault(name, text) != text:
            raise QdqcError(
                f"the pipeline '@{name}' of '{module.__name__}' is already defined otherwise",
                file=module.__file__,
                notes=["give it another name"],
            )


def _explain(error: BaseException, where: str, about: str) -> QdqcError:
    """An error in somebody's file: its line there, what was raised, and what to do."""
    reason = summary(error)
    if isinstance(error, QdqcError):
        reason = error.diagnostic.message
    place = about
    if isinstance(error, SyntaxError) and error.filename:
        place, reason = f"{error.filename}:{error.lineno}", f"SyntaxError: {error.msg}"
    else:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if where in f.filename]
        if frames:
            place = f"{frames[-1].filename}:{frames[-1].lineno}"
    return QdqcError(
        f"can't load {about}: {reason}",
        file=place,
        notes=["correct the file; docs/writing-a-pass.md shows a whole one"],
    )
