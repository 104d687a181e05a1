"""Registries by name, for ops and passes alike."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from qdqc.diagnostics import suggestion

__all__ = ["Registry"]

T = TypeVar("T", bound=type)


class Registry(Generic[T]):
    """Classes by their ``name``.

    Defining the same class again (same module and qualified name) replaces it, so a plugin can
    be reloaded. A second class with a taken name raises ValueError.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._found: dict[str, T] = {}

    def add(self, name: str, cls: T) -> None:
        """Enter a class. Raises ValueError when another class has the name."""
        held = self._found.get(name)
        if held is not None and _identity(held) != _identity(cls):
            raise ValueError(
                f"{self.kind} '{name}' is defined twice: by {_identity(held)} "
                f"and by {_identity(cls)}"
            )
        self._found[name] = cls

    def get(self, name: str) -> T | None:
        return self._found.get(name)

    def __getitem__(self, name: str) -> T:
        """The class of that name. Raises KeyError that suggests the nearest."""
        if name not in self._found:
            raise KeyError(f"unknown {self.kind} '{name}'{suggestion(name, self._found)}")
        return self._found[name]

    def __iter__(self) -> Iterator[T]:
        return iter(self._found[name] for name in sorted(self._found))

    def names(self) -> list[str]:
        return sorted(self._found)

    @contextmanager
    def scratch(self) -> Generator[None]:
        """Within the block new entries are local: they are gone after it."""
        held = dict(self._found)
        try:
            yield
        finally:
            self._found = held


def _identity(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
