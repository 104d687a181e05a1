"""What each value became when types were spelt out as casts, and the names that this takes.

These names are made here and cut nowhere: whoever wants to know of what value a tensor is a part
asks the map. One that was not kept is found again in the graph, by its casts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.graph import Module
from qdqc.ops import Dequantize, Quantize

__all__ = [
    "Lowered",
    "ValueParts",
    "before_name",
    "integers_name",
    "is_only_quantized",
    "joint_name",
    "lowered_of",
    "stored_name",
    "view_name",
]


def stored_name(module: Module, name: str) -> str:
    """A free name for the integers of a value whose float view bears its name."""
    return module.fresh_name(f"{name}_q")


def view_name(module: Module, name: str) -> str:
    """A free name for the float view of integers that bear the value's name."""
    return module.fresh_name(f"{name}_dq")


def before_name(module: Module, name: str) -> str:
    """A free name for the float result of an op before it is quantized."""
    return module.fresh_name(f"{name}_f")


def integers_name(module: Module, name: str) -> str:
    """A free name for the integers of a graph output, whose float view keeps the name."""
    return module.fresh_name(f"{name}_i")


@dataclass(frozen=True)
class ValueParts:
    """Names in the lowered module of what one value became; each is None where there is none.

    ``stored`` are the integers, ``view`` the float numbers that they stand for, ``before`` what
    the op gives in float before they are rounded.
    """

    stored: str | None = None
    view: str | None = None
    before: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The integers first, then the float result and the view."""
        return tuple(filter(None, (self.stored, self.before, self.view)))


@dataclass(frozen=True)
class Lowered:
    """The parts of each quantized value, by its name before it was lowered.

    ``changes`` is the number of nodes that lowering changed.
    """

    parts: Mapping[str, ValueParts] = field(default_factory=dict[str, ValueParts])
    changes: int = 0

    def of(self, name: str) -> ValueParts:
        """The parts of a value; none for one that is no integer."""
        return self.parts.get(name, ValueParts())

    def value_of(self, tensor: str) -> str:
        """The name of the value that a tensor of the lowered module is a part of."""
        return self._values.get(tensor, tensor)

    @cached_property
    def _values(self) -> Mapping[str, str]:
        values: dict[str, str] = {}
        for name, parts in self.parts.items():  # an explicit view comes behind what it views
            for part in parts.names:
                values.setdefault(part, name)
        return values


def lowered_of(module: Module) -> Lowered:
    """The map of a module that was lowered by whomever, found by its casts."""
    casts = (node for node in module.graph.nodes() if isinstance(node.op, Quantize))
    parts = dict(_parts_of(node) for node in casts)
    constants = (v for v in module.constants.values() if v.quant is not None)
    for stored, view in ((v, view) for v in constants for view in _views(v)):
        parts.setdefault(view.name, ValueParts(stored.name, view.name))
    return Lowered(parts)


def _parts_of(node: Node[Quantize]) -> tuple[str, ValueParts]:
    source, stored = node.need("x"), node.result
    views = sorted(_views(stored), key=lambda v: v.is_output)
    own = is_only_quantized(source)
    name = joint_name(source, stored) if own else stored.name
    before = source.name if own else None
    return name, ValueParts(stored.name, views[0].name if views else None, before)


def joint_name(before: Value, stored: Value) -> str:
    """The name of a float result and the integers that it is rounded to, as one value.

    A graph output keeps its name. Else it is that of the float view, or of the integers, if the
    result's name was made from it as ``before_name`` does; other tools make the other names from
    the result's.
    """
    if stored.is_output:
        return stored.name
    behind = [*(v.name for v in _views(stored) if not v.is_output), stored.name]
    return next((name for name in behind if before.name.startswith(name)), before.name)


def is_only_quantized(value: Value) -> bool:
    """Whether all readers of a node's result quantize it."""
    if isinstance(value, Constant) or value.is_input or value.is_output or not value.users:
        return False
    return all(isinstance(user.op, Quantize) for user in value.users)


def _views(stored: Value) -> Iterator[Value]:
    """Float views of integers."""
    return (user.result for user in stored.users if isinstance(user.op, Dequantize))
