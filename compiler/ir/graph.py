"""Graphs and modules. Together with ``core.py`` the only place that changes edges."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias

from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.data import Data
from qdqc.ir.loc import UNKNOWN, Loc
from qdqc.ir.op import Op
from qdqc.ir.types import TensorType, Type

__all__ = ["Attributes", "Graph", "Module"]

Attributes: TypeAlias = dict[str, Any]


class Graph:
    """Nodes in execution order between inputs and outputs.

    A nested graph hangs on ``owner`` and reads values of outer graphs freely.
    """

    def __init__(self, module: Module, owner: Node[Any] | None = None) -> None:
        self.module = module
        self.owner = owner
        self.inputs: list[Value] = []
        self.input_attrs: dict[str, Attributes] = {}
        self._outputs: list[Value] = []
        self._first: Node[Any] | None = None
        self._last: Node[Any] | None = None
        self._count = 0

    @property
    def outputs(self) -> tuple[Value, ...]:
        return tuple(self._outputs)

    def set_outputs(self, values: Sequence[Value]) -> None:
        for index, before in enumerate(self._outputs):
            before.drop_use(self, index)
        self._outputs = list(values)
        for index, value in enumerate(self._outputs):
            value.add_use(self, index)

    def set_output(self, index: int, value: Value) -> None:
        self._outputs[index].drop_use(self, index)
        self._outputs[index] = value
        value.add_use(self, index)

    def add_input(self, name: str, type: Type, attrs: Attributes | None = None) -> Value:
        """Append an input. Raises ValueError when the name is taken."""
        value = Value(self.module, name, type, graph=self, index=len(self.inputs))
        self.inputs.append(value)
        if attrs:
            self.input_attrs[name] = attrs
        return value

    def drop_inputs(self, dropped: Collection[int]) -> None:
        """Take inputs at these places away. Raises ValueError when somebody reads one."""
        for index in dropped:
            value = self.inputs[index]
            if value.is_used:
                raise ValueError(f"can't drop {value}: it is still read")
            self.module.leave(value)
            self.input_attrs.pop(value.name, None)
        self.inputs = [v for i, v in enumerate(self.inputs) if i not in dropped]
        for index, value in enumerate(self.inputs):
            value.index = index

    def nodes(self) -> Iterator[Node[Any]]:
        """Nodes in order. The node just yielded may be erased, and nodes may be inserted."""
        node = self._first
        while node is not None:
            following = node.next
            yield node
            node = following

    def walk(self) -> Iterator[Node[Any]]:
        """Nodes of this graph and of all nested ones, each before the nodes inside it."""
        for node in self.nodes():
            yield node
            for graph in node.graphs:
                yield from graph.walk()

    def __len__(self) -> int:
        return self._count

    def insert(
        self,
        op: Op,
        operands: Sequence[Value | None],
        types: Sequence[Type | None] | None = None,
        names: Sequence[str | None] = (),
        *,
        loc: Loc = UNKNOWN,
        mode: str | None = None,
        graphs: Sequence[Graph] = (),
        before: Node[Any] | None = None,
    ) -> Node[Any]:
        """Create a node before another, or at the end.

        Without ``types`` they are inferred (ValueError where operands do not fit). ``names``
        of results are made from the op's name where they are not given; a name of None
        together with given types leaves that result absent, and so does no name for an
        optional result.
        """
        node: Node[Any] = Node(self, op, loc, mode)
        node.set_operands(operands)
        node.graphs = list(graphs)
        for graph in node.graphs:
            graph.owner = node
        try:
            result_types = list(op.infer_node(node)) if types is None else list(types)
            for index, type in enumerate(result_types):
                given = names[index] if index < len(names) else None
                specs = op.result_specs
                optional = index < len(specs) and specs[index].optional
                unnamed = given is None and (optional or (types is not None and names))
                absent = type is None or unnamed
                if absent or type is None:
                    node.results.append(None)
                    continue
                name = given if given is not None else self.module.fresh_name(op.name)
                node.results.append(Value(self.module, name, type, node, index, self))
        except ValueError:
            for result in node.present_results:
                self.module.leave(result)
            node.set_operands(())
            raise
        self._link(node, before)
        return node

    def _link(self, node: Node[Any], before: Node[Any] | None) -> None:
        node.next = before
        node.prev = self._last if before is None else before.prev
        if node.prev is None:
            self._first = node
        else:
            node.prev.next = node
        if before is None:
            self._last = node
        else:
            before.prev = node
        self._count += 1

    def _unlink(self, node: Node[Any]) -> None:
        if node.prev is None:
            self._first = node.next
        else:
            node.prev.next = node.next
        if node.next is None:
            self._last = node.prev
        else:
            node.next.prev = node.prev
        self._count -= 1

    def move(self, node: Node[Any], before: Node[Any] | None) -> None:
        """Put a node, of this graph or another one of the module, at a place in this graph."""
        node.graph._unlink(node)
        node.graph = self
        for result in node.present_results:
            result.graph = self
        self._link(node, before)

    def erase(self, node: Node[Any]) -> None:
        """Remove a node whose results nobody reads. Raises ValueError when somebody does."""
        for result in node.present_results:
            if result.is_used:
                raise ValueError(f"can't erase '{node.name}': {result} is still read")
        for graph in node.graphs:
            graph.clear()
        node.set_operands(())
        for result in node.present_results:
            self.module.leave(result)
        self._unlink(node)
        node.erased = True

    def clear(self) -> None:
        """Erase all nodes and outputs, and forget the inputs."""
        self.set_outputs(())
        for node in reversed(list(self.nodes())):
            self.erase(node)
        for value in self.inputs:
            self.module.leave(value)
        self.inputs.clear()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a graph is part of a module and can't be pickled alone: take the module")


@dataclass(eq=False)
class Module:
    """A graph with its constants and its header.

    ``opsets`` are the ONNX opsets of the source by domain. ``header`` holds the other entries
    of the header as plain values: source, digest, target, pipeline.
    """

    name: str = "main"
    opsets: dict[str, int] = field(default_factory=dict)
    header: Attributes = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._values: dict[str, Value] = {}
        self.constants: dict[str, Constant] = {}
        self._suffixes: dict[str, int] = {}
        self.graph = Graph(self)

    def enter(self, value: Value) -> None:
        """Take up a value's name. Raises ValueError when another value has it."""
        present = self._values.get(value.name)
        if present is not None and present is not value:
            raise ValueError(f"the name '%{value.name}' is taken")
        self._values[value.name] = value
        if isinstance(value, Constant):
            self.constants[value.name] = value

    def leave(self, value: Value) -> None:
        """Free a value's name."""
        if self._values.get(value.name) is value:
            del self._values[value.name]
            self.constants.pop(value.name, None)

    def value(self, name: str) -> Value | None:
        """The value of that name, in whatever graph."""
        return self._values.get(name)

    def value_names(self) -> Iterable[str]:
        return self._values.keys()

    def fresh_name(self, base: str) -> str:
        """``base`` if it is free, else ``base_1``, ``base_2`` ..."""
        if base not in self._values:
            return base
        count = self._suffixes.get(base, 0)
        while True:
            count += 1
            name = f"{base}_{count}"
            if name not in self._values:
                self._suffixes[base] = count
                return name

    def add_constant(self, name: str, data: Data, type: TensorType | None = None) -> Constant:
        """A new constant. Raises ValueError when the name is taken."""
        stated = type if type is not None else TensorType(data.elem, data.shape)
        return Constant(self, name, stated, data)

    def drop_unused_constants(self) -> int:
        """Forget constants that nobody reads; returns how many."""
        unused = [c for c in self.constants.values() if not c.is_used]
        for constant in unused:
            self.leave(constant)
        return len(unused)

    def walk(self) -> Iterator[Node[Any]]:
        """All nodes of all graphs."""
        return self.graph.walk()

    def __eq__(self, other: object) -> bool:
        """Modules are equal when their texts are."""
        from qdqc.text.printer import print_module

        return isinstance(other, Module) and print_module(self) == print_module(other)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as a flat record, so that no depth of a graph is too much."""
        from qdqc.ir.clone import rebuild, record

        return rebuild, (record(self),)

    def __deepcopy__(self, memo: dict[int, Any]) -> Module:
        from qdqc.ir.clone import clone

        return clone(self)
