"""Values, constants and nodes. Together with ``graph.py`` the only place that changes edges."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from qdqc.ir.data import Data
from qdqc.ir.loc import Loc
from qdqc.ir.op import Op, QuantTraits
from qdqc.ir.types import VALUE_LIMIT, Elem, Quant, Range, TensorType, Type

if TYPE_CHECKING:
    from qdqc.ir.dims import Dim
    from qdqc.ir.graph import Graph, Module

__all__ = ["Constant", "Node", "Use", "Value"]

OpT = TypeVar("OpT", bound=Op)


@dataclass(frozen=True, eq=False, slots=True)
class Use:
    """Operand ``index`` of a node, or output ``index`` of a graph."""

    user: Node[Any] | Graph
    index: int

    def take(self, other: Value) -> None:
        """Let this place read ``other`` instead."""
        if isinstance(self.user, Node):
            self.user.set_operand(self.index, other)
        else:
            self.user.set_output(self.index, other)


class Value:
    """What flows along an edge: a graph input or a result of a node.

    ``producer`` is None for graph inputs and constants; ``graph`` is None for constants.
    """

    __slots__ = ("_name", "_uses", "graph", "index", "module", "producer", "type")

    def __init__(
        self,
        module: Module,
        name: str,
        type: Type,
        producer: Node[Any] | None = None,
        index: int = 0,
        graph: Graph | None = None,
    ) -> None:
        self.module = module
        self._name = name
        self.type: Type = type
        self.producer = producer
        self.index = index
        self.graph = graph
        self._uses: dict[tuple[int, int], Use] = {}
        module.enter(self)

    @property
    def name(self) -> str:
        return self._name

    def rename(self, name: str) -> None:
        """Give the value another name. Raises ValueError when it is taken."""
        if name == self._name:
            return
        self.module.leave(self)
        before, self._name = self._name, name
        try:
            self.module.enter(self)
        except ValueError:
            self._name = before
            self.module.enter(self)
            raise

    @property
    def uses(self) -> tuple[Use, ...]:
        """Every use, in the order in which they were made."""
        return tuple(self._uses.values())

    @property
    def users(self) -> tuple[Node[Any], ...]:
        """The nodes that read the value, each once; graph outputs are not nodes."""
        nodes = dict.fromkeys(u.user for u in self._uses.values() if isinstance(u.user, Node))
        return tuple(nodes)

    @property
    def is_used(self) -> bool:
        return bool(self._uses)

    @property
    def is_output(self) -> bool:
        """Whether a graph returns the value."""
        return any(not isinstance(u.user, Node) for u in self._uses.values())

    @property
    def is_input(self) -> bool:
        return self.producer is None and self.graph is not None

    @property
    def tensor(self) -> TensorType:
        """The type, where it must be a tensor. Raises TypeError."""
        if not isinstance(self.type, TensorType):
            raise TypeError(f"%{self._name} is not a tensor")
        return self.type

    @property
    def elem(self) -> Elem | None:
        """The element type as it is stored (u8 of a quantized value); None for no tensor."""
        return self.type.elem if isinstance(self.type, TensorType) else None

    @property
    def is_float(self) -> bool:
        """Whether the stored elements are floats of any width; a quantized value has integers."""
        return self.elem is not None and self.elem.is_float

    @property
    def shape(self) -> tuple[Dim, ...] | None:
        """The shape; None for an unknown rank and for no tensor."""
        return self.type.shape if isinstance(self.type, TensorType) else None

    @property
    def quant(self) -> Quant | None:
        """Scale and zero point; None where the value is not quantized."""
        return self.type.quant if isinstance(self.type, TensorType) else None

    @property
    def range(self) -> Range | None:
        """The calibrated range; None where there is none."""
        return self.type.range if isinstance(self.type, TensorType) else None

    def inference_type(self) -> Type:
        """The type as inference sees it: a quantized value stands for float32 numbers."""
        return self.type.expressed() if isinstance(self.type, TensorType) else self.type

    def replace_uses(self, other: Value, keep: Iterable[Node[Any]] = ()) -> None:
        """Let every user read ``other`` instead, save the nodes in ``keep``."""
        kept = set(keep)
        for use in self.uses:
            if use.user not in kept:
                use.take(other)

    def add_use(self, user: Node[Any] | Graph, index: int) -> None:
        self._uses[id(user), index] = Use(user, index)

    def drop_use(self, user: Node[Any] | Graph, index: int) -> None:
        del self._uses[id(user), index]

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self} is part of a module and can't be pickled alone: take the module")

    def __repr__(self) -> str:
        return f"%{self._name}"


class Constant(Value):
    """A value known at compile time; it belongs to the module, not to a graph."""

    __slots__ = ("_seen", "data")

    def __init__(self, module: Module, name: str, type: TensorType, data: Data) -> None:
        super().__init__(module, name, type)
        self.data = data
        self._seen: tuple[Type, Data, Type] | None = None

    def inference_type(self) -> Type:
        """As for other values, with the contents of a small tensor of integers or booleans.

        They are read once for a type, so a constant costs its bytes only when somebody infers.
        """
        type, data = self.type, self.data
        if self._seen is None or self._seen[0] is not type or self._seen[1] is not data:
            plain = super().inference_type()
            self._seen = type, data, _with_contents(plain, data)
        return self._seen[2]


def _with_contents(type: Type, data: Data) -> Type:
    if not isinstance(type, TensorType) or type.value is not None:
        return type
    small = len(data.shape) <= 1 and data.size <= VALUE_LIMIT and not data.is_elided
    if not small or not (type.elem.is_integer or type.elem is Elem.BOOL):
        return type
    numbers = tuple(int(x) for x in data.array().reshape(-1))
    return TensorType(type.elem, type.shape, value=numbers)


class Node(Generic[OpT]):
    """An op applied to operands. Create one with ``Graph.insert``.

    ``mode`` is the precision that a plan chose (``INT8``, ``F32``) until the types say it.
    """

    __slots__ = (
        "_operands",
        "erased",
        "graph",
        "graphs",
        "loc",
        "mode",
        "next",
        "op",
        "prev",
        "results",
    )

    def __init__(self, graph: Graph, op: OpT, loc: Loc, mode: str | None) -> None:
        self.graph = graph
        self.op: OpT = op
        self.loc = loc
        self.mode = mode
        self.results: list[Value | None] = []
        self.graphs: list[Graph] = []
        self._operands: list[Value | None] = []
        self.erased = False
        self.prev: Node[Any] | None = None
        self.next: Node[Any] | None = None

    @property
    def operands(self) -> tuple[Value | None, ...]:
        return tuple(self._operands)

    @property
    def name(self) -> str:
        """The name of the first result that is present."""
        return next((r.name for r in self.results if r is not None), "")

    @property
    def result(self) -> Value:
        """The first result. Raises ValueError when it is absent."""
        if not self.results or self.results[0] is None:
            raise ValueError(f"node '{self.name}' has no first result")
        return self.results[0]

    @property
    def present_results(self) -> tuple[Value, ...]:
        return tuple(r for r in self.results if r is not None)

    @property
    def present_operands(self) -> tuple[Value, ...]:
        return tuple(v for v in self._operands if v is not None)

    def at(self, index: int | None) -> Value | None:
        """The operand at a position; None where it is absent or there is no such position."""
        if index is None or not 0 <= index < len(self._operands):
            return None
        return self._operands[index]

    def operand(self, name: str) -> Value | None:
        """The operand that the op calls ``name``; None when it is absent. Raises KeyError."""
        for index, spec in enumerate(self.op.operand_specs):
            if spec.name == name:
                return self._operands[index] if index < len(self._operands) else None
        raise KeyError(f"'{self.op.name}' has no operand '{name}'")

    def need(self, name: str) -> Value:
        """The operand that the op calls ``name``, where it must be present. Raises KeyError."""
        value = self.operand(name)
        if value is None:
            raise KeyError(f"'{self.op.name}' lacks its operand '{name}'")
        return value

    def operand_types(self) -> tuple[Type | None, ...]:
        """Types as inference sees them: quantized values stand for float32 numbers, and
        contents of small integer constants are known.
        """
        return tuple(None if v is None else v.inference_type() for v in self._operands)

    @property
    def traits(self) -> QuantTraits:
        """How quantization sees the node, on operands of the types that it has now."""
        return self.op.quant(*self.operand_types())

    def set_operand(self, index: int, value: Value | None) -> None:
        """Replace one operand; absent ones that are then the last are left out."""
        before = self._operands[index]
        if before is not None:
            before.drop_use(self, index)
        self._operands[index] = value
        if value is not None:
            value.add_use(self, index)
        while self._operands and self._operands[-1] is None:
            self._operands.pop()

    def set_operands(self, values: Sequence[Value | None]) -> None:
        """Replace all operands; trailing absent ones are left out."""
        for index, before in enumerate(self._operands):
            if before is not None:
                before.drop_use(self, index)
        count = len(values)
        while count and values[count - 1] is None:
            count -= 1
        self._operands = list(values[:count])
        for index, value in enumerate(self._operands):
            if value is not None:
                value.add_use(self, index)

    def drop_results(self, dropped: Collection[int]) -> None:
        """Take results at these places away. Raises ValueError when somebody reads one."""
        for index in dropped:
            result = self.results[index]
            if result is not None and result.is_used:
                raise ValueError(f"can't drop {result}: it is still read")
            if result is not None:
                self.graph.module.leave(result)
        self.results = [r for i, r in enumerate(self.results) if i not in dropped]
        for index, result in enumerate(self.results):
            if result is not None:
                result.index = index

    def captures(self) -> list[Value]:
        """Values of outer graphs that the nested graphs read, each once."""
        inner = set(self.nested_graphs())
        captured: dict[Value, None] = {}
        for graph in inner:
            reads = [v for n in graph.nodes() for v in n.present_operands]
            for value in (*reads, *graph.outputs):
                if not isinstance(value, Constant) and value.graph not in inner:
                    captured[value] = None
        return list(captured)

    def nested_graphs(self) -> Iterator[Graph]:
        """All graphs inside this node, outer ones first."""
        for graph in self.graphs:
            yield graph
            for node in graph.nodes():
                yield from node.nested_graphs()

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self} is part of a module and can't be pickled alone: take the module")

    def __repr__(self) -> str:
        return f"<{self.op.name} {self.name}>"
