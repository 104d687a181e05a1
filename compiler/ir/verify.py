"""The verifier: whether a module holds together, whatever pass or text it comes from.

It is linear in the size of the module and runs after each pass under ``--verify-each``. What
a target allows is checked by functions that the caller adds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

from qdqc.diagnostics import Diagnostic, QdqcError, Severity
from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.graph import Graph, Module
from qdqc.ir.merge import compatible
from qdqc.ir.op import OperandSpec
from qdqc.ir.spelling import print_name, print_type
from qdqc.ir.types import TensorType
from qdqc.ir.verify_types import type_problems

__all__ = ["Check", "check", "verify"]

Check: TypeAlias = Callable[[Module], Iterable[Diagnostic]]
"""A further check, of a target for example; gives what is wrong."""

Reads: TypeAlias = "dict[Value, set[tuple[int, int]]]"


def verify(module: Module, checks: Sequence[Check] = ()) -> list[Diagnostic]:
    """Everything that is wrong with a module; ``checks`` run only if nothing else is."""
    diagnostics = list(_Verifier(module).run())
    if not diagnostics:
        for further in checks:
            diagnostics.extend(further(module))
    return diagnostics


def check(module: Module, stage: str = "", checks: Sequence[Check] = ()) -> None:
    """Raise a QdqcError with the first thing that is wrong, and how many more there are.

    ``stage`` says when the module was looked at: ``pass 'fuse-pad' (3 of 9)``.
    """
    diagnostics = verify(module, checks)
    if not diagnostics:
        return
    first = diagnostics[0]
    notes = list(first.notes)
    if len(diagnostics) > 1:
        notes.append(f"{len(diagnostics) - 1} more such errors follow from here on")
    if stage:
        notes.append(f"found after {stage}")
    raise QdqcError(first.message, node=first.node, loc=first.loc, file=first.file, notes=notes)


class _Verifier:
    """One walk over a module."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.visible: set[Value] = set()
        self.values: list[Value] = []
        self.reads: Reads = defaultdict(set)

    def run(self) -> Iterator[Diagnostic]:
        for name, constant in self.module.constants.items():
            self.values.append(constant)
            self.visible.add(constant)
            if constant.name != name:
                yield _error(f"constant {_named(constant)} is entered as '{name}'")
            yield from self._constant(constant)
        yield from self._graph(self.module.graph, None)
        yield from self._names()
        yield from self._uses()

    def _constant(self, constant: Constant) -> Iterator[Diagnostic]:
        for problem in type_problems(constant.type):
            yield _error(f"constant {_named(constant)}: {problem}")
        type, data = constant.type, constant.data
        if not isinstance(type, TensorType):
            yield _error(f"constant {_named(constant)} is not a tensor")
        elif type.elem is not data.elem or type.shape != data.shape:
            stored = print_type(TensorType(data.elem, data.shape))
            yield _error(f"constant {_typed(constant)} holds data of type {stored}")

    def _graph(self, graph: Graph, owner: Node[Any] | None) -> Iterator[Diagnostic]:
        """The graph and all inside it; what it defines is out of sight afterwards."""
        if graph.owner is not owner or graph.module is not self.module:
            yield _error("a nested graph does not belong to the node that it hangs on", owner)
        defined: list[Value] = []
        for index, value in enumerate(graph.inputs):
            defined.append(value)
            if value.graph is not graph or value.index != index or value.producer is not None:
                yield _error(f"graph input {_named(value)} does not know its place", owner)
            for problem in type_problems(value.type):
                yield _error(f"graph input {_named(value)}: {problem}", owner)
        for name in graph.input_attrs.keys() - {v.name for v in graph.inputs}:
            yield _error(f"attributes are given for '{name}', which is not a graph input", owner)
        self.visible.update(defined)
        previous: Node[Any] | None = None
        count = 0
        for node in graph.nodes():
            count += 1
            if node.prev is not previous or node.graph is not graph or node.erased:
                yield _error("the node is not linked into its graph as it should be", node)
                break
            previous = node
            yield from self._node(node)
            defined.extend(node.present_results)
            self.visible.update(node.present_results)
        if count != len(graph):
            yield _error(f"a graph has {count} nodes, but counts {len(graph)}", owner)
        for index, value in enumerate(graph.outputs):
            self.reads[value].add((id(graph), index))
            if value not in self.visible:
                yield _error(f"graph output {_named(value)} is not defined in the graph", owner)
        self.visible.difference_update(defined)
        self.values.extend(defined)

    def _node(self, node: Node[Any]) -> Iterator[Diagnostic]:
        for index, value in enumerate(node.operands):
            if value is None:
                continue
            self.reads[value].add((id(node), index))
            if value not in self.visible:
                yield _error(_unseen(self.module, value), node)
        wrong = [*_counts(node)]
        yield from (_error(message, node) for message in wrong)
        for graph in node.graphs:
            yield from self._graph(graph, node)
        for index, value in enumerate(node.results):
            if value is None:
                continue
            if value.producer is not node or value.index != index or value.graph is not node.graph:
                yield _error(f"result {_named(value)} does not know its producer", node)
            for problem in type_problems(value.type):
                yield _error(f"result {_named(value)}: {problem}", node)
        if not wrong:
            yield from _inferred(node)

    def _names(self) -> Iterator[Diagnostic]:
        """Every living value has its name, and no other value is held under a name."""
        alive = set(self.values)
        for value in self.values:
            if self.module.value(value.name) is not value:
                yield _error(f"the name {_named(value)} belongs to another value", value.producer)
        for name in self.module.value_names():
            if self.module.value(name) not in alive:
                yield _error(f"the name {print_name(name)} is held by a value that is gone")

    def _uses(self) -> Iterator[Diagnostic]:
        """Uses are what nodes and graphs read, no more and no less."""
        for value in self.values:
            uses = {(id(use.user), use.index) for use in value.uses}
            if uses != self.reads.get(value, set()):
                users = ", ".join(repr(node) for node in value.users) or "no node"
                yield _error(
                    f"the uses of {_named(value)} are not what reads it (listed: {users})",
                    value.producer,
                )


def _counts(node: Node[Any]) -> Iterator[str]:
    """Operands, results and graphs against what the op declares."""
    op = node.op
    yield from _against(node.operands, op.operand_specs, "operand")
    yield from _against(node.results, op.result_specs, "result")
    # An op that takes any ONNX node names its graphs in an attribute.
    want: Sequence[str] = op.graphs or getattr(op, "graph_names", ())
    if len(node.graphs) != len(want):
        yield f"has {len(node.graphs)} nested graphs, needs {len(want)}"


def _against(
    values: Sequence[Value | None], specs: Sequence[OperandSpec], what: str
) -> Iterator[str]:
    variadic = bool(specs) and specs[-1].variadic
    if not variadic and len(values) > len(specs):
        yield f"has {len(values)} {what}s, takes at most {len(specs)}"
    if what == "result":
        return
    for index, spec in enumerate(specs):
        absent = index >= len(values) or values[index] is None
        if absent and not spec.optional and not spec.variadic:
            yield f"lacks its {what} '{spec.name}'"


def _inferred(node: Node[Any]) -> Iterator[Diagnostic]:
    """The declared types against those that the op infers."""
    try:
        types = node.op.infer_node(node)
    except ValueError as error:
        yield _error(str(error), node)
        return
    for index, value in enumerate(node.results):
        if value is None:
            continue
        if index >= len(types):
            yield _error(f"gives {len(types)} results, {_named(value)} is one more", node)
            continue
        inferred = types[index]
        if inferred is not None and not compatible(value.type, inferred):
            yield _error(
                f"result {_named(value)} is declared {print_type(value.type, elide=True)}, "
                f"but the operands give {print_type(inferred)}",
                node,
            )


def _unseen(module: Module, value: Value) -> str:
    if module.value(value.name) is not value:
        return f"operand {_named(value)} is not part of the module any more"
    producer = value.producer
    if producer is None:
        return f"operand {_named(value)} is an input of another graph"
    return f"operand {_named(value)} is not defined before the node, or not in sight of it"


def _error(message: str, node: Node[Any] | None = None) -> Diagnostic:
    if node is None:
        return Diagnostic(Severity.ERROR, message)
    notes = tuple(_origin(v) for v in dict.fromkeys(node.present_operands))
    return Diagnostic(Severity.ERROR, message, node.op.name, node.loc, notes=notes)


def _origin(value: Value) -> str:
    """Where an operand comes from, for a note."""
    if isinstance(value, Constant):
        return f"{_typed(value)} is a constant"
    if value.producer is None:
        return f"{_typed(value)} is a graph input"
    names = ", ".join(f'"{n}"' for n in value.producer.loc.names)
    behind = f", ONNX node {names}" if names else ""
    return f"{_typed(value)} is produced by '{value.producer.op.name}'{behind}"


def _named(value: Value) -> str:
    return print_name(value.name)


def _typed(value: Value) -> str:
    return f"{_named(value)} : {print_type(value.type, elide=True)}"
