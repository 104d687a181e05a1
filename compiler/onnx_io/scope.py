"""Names of one ONNX graph and of those around it, and the values that they stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from onnx import NodeProto

from qdqc.ir.core import Constant, Value
from qdqc.ir.data import Data
from qdqc.ir.graph import Module
from qdqc.onnx_io.structure import reads

__all__ = ["Scope"]


class Scope:
    """Values by ONNX name. Constants are made when first asked for, so unused ones never are.

    ``path`` qualifies a name that an outer graph, or another nested one, has taken.
    """

    def __init__(self, module: Module, path: str, outer: Scope | None) -> None:
        self.module = module
        self.path = path
        self.outer = outer
        self.readers: dict[str, list[NodeProto]] = {}
        self.outputs: set[str] = set()
        self.reserved: set[str] = set() if outer is None else outer.reserved
        self._values: dict[str, Value] = {}
        self._contents: dict[str, Callable[[], Data]] = {}

    def note_readers(self, nodes: Iterable[NodeProto]) -> None:
        """Remember which nodes read each name, in their nested graphs too."""
        for node in nodes:
            for name in dict.fromkeys(reads(node)):
                self.readers.setdefault(name, []).append(node)

    def defer(self, name: str, contents: Callable[[], Data]) -> None:
        """A constant of that name, read when it is asked for."""
        self._contents[name] = contents

    def is_deferred(self, name: str) -> bool:
        return name in self._contents

    def set(self, name: str, value: Value) -> None:
        self._values[name] = value

    def __getitem__(self, name: str) -> Value:
        """The value of a name in this graph or an outer one. Raises KeyError."""
        value = self._values.get(name)
        if value is None and name in self._contents:
            value = self._values[name] = self._constant(name)
        if value is not None:
            return value
        if self.outer is None:
            raise KeyError(name)
        return self.outer[name]

    def names(self) -> set[str]:
        """Every name that is visible so far."""
        outer = set() if self.outer is None else self.outer.names()
        return outer | self._values.keys() | self._contents.keys()

    def free(self, name: str) -> str:
        """The name for a new value: itself, or qualified by the path where it is taken."""
        taken = self.module.value(name) is not None
        if not taken and (self.outer is None or name not in self.reserved):
            return name
        return self.module.fresh_name(self.path + name)

    def _constant(self, name: str) -> Constant:
        return self.module.add_constant(self.free(name), self._contents[name]())
