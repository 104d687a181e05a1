"""Registries by name: what subclassing fills and a plugin may add to."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from qdqc.diagnostics import QdqcError, suggestion

__all__ = ["Registry"]

T = TypeVar("T")


class Registry(Generic[T]):
    """Classes, or instances of classes, by name; ``kind`` is what messages call them.

    ``home`` is the package whose files define the built-in ones: all of them are imported before
    anything is looked up, so a new file there needs no list.

    Defining the same class again (same module and qualified name) replaces it, so a plugin can
    be reloaded. A second class with a taken name raises ValueError.
    """

    def __init__(self, kind: str, home: str = "") -> None:
        self.kind = kind
        self._home = home
        self._is_complete = not home
        self._entries: dict[str, T] = {}

    def add(self, name: str, entry: T) -> None:
        """Enter a class or an instance. Raises ValueError when another class has the name."""
        if not _class_of(entry).__module__.startswith(f"{self._home}."):
            self._complete()
        present = self._entries.get(name)
        if present is not None and _identity(present) != _identity(entry):
            raise ValueError(
                f"{self.kind} '{name}' is defined twice: by {_identity(present)} "
                f"and by {_identity(entry)}"
            )
        self._entries[name] = entry

    def get(self, name: str) -> T | None:
        """The entry of that name, or None."""
        self._complete()
        return self._entries.get(name)

    def __getitem__(self, name: str) -> T:
        """The entry of that name. Raises QdqcError that suggests the nearest and lists all."""
        self._complete()
        if name not in self._entries:
            known = self.names()
            raise QdqcError(
                f"unknown {self.kind} '{name}'{suggestion(name, known)}",
                notes=[f"known: {', '.join(known) or 'none'}"],
            )
        return self._entries[name]

    def __iter__(self) -> Iterator[T]:
        return iter([self._entries[name] for name in self.names()])

    def names(self) -> list[str]:
        """All names, sorted."""
        self._complete()
        return sorted(self._entries)

    @contextmanager
    def scratch(self) -> Generator[None]:
        """Within the block new entries are local: they are gone after it."""
        self._complete()
        outside = dict(self._entries)
        try:
            yield
        finally:
            self._entries = outside

    def _complete(self) -> None:
        if self._is_complete:
            return
        self._is_complete = True  # files of home may look things up themselves
        package = importlib.import_module(self._home)
        for file in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self._home}.{file.name}")


def _class_of(entry: object) -> type:
    return entry if isinstance(entry, type) else type(entry)


def _identity(entry: object) -> str:
    cls = _class_of(entry)
    return f"{cls.__module__}.{cls.__qualname__}"
