"""Builds the module while its text is being read; values are resolved by name as they come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lark import Token

from qdqc.diagnostics import QdqcError, suggestion
from qdqc.ir.core import Node, Value
from qdqc.ir.fields import FieldError, decode
from qdqc.ir.graph import Graph, Module
from qdqc.ir.loc import UNKNOWN, Loc
from qdqc.ir.op import OPS, Op
from qdqc.ir.spelling import print_name
from qdqc.ir.types import TensorType, Type
from qdqc.text.source import Source
from qdqc.text.values import DEEPEST, Contents, Resolve, ValueReader

__all__ = ["ModuleReader"]


class ModuleReader(ValueReader):
    """The actions of the grammar for modules, graphs and nodes."""

    def __init__(self) -> None:
        super().__init__()
        self._begun = Module()
        self._open: list[tuple[Graph, list[Token]]] = []
        self._open_sidecar: Callable[[str], Resolve] | None = None

    def begin(
        self,
        source: Source,
        resolve: Resolve | None,
        open_sidecar: Callable[[str], Resolve] | None,
    ) -> None:
        """Begin with another text."""
        self.start(source, resolve)
        self._begun = Module()
        self._open = []
        self._open_sidecar = open_sidecar

    def end(self) -> None:
        """Let go of the text and the module."""
        self.begin(Source("", ""), None, None)

    def module(self, _items: list[Any]) -> Module:
        return self._begun

    def module_head(self, items: list[Any]) -> None:
        token, header = items[0], self.mapping([items[1] or {}])
        module = self._begun
        module.name = self._name(token)
        opsets = header.pop("opsets", {})
        if not isinstance(opsets, dict) or not all(type(v) is int for v in opsets.values()):
            raise self.source.error('opsets are versions by domain: {"" = 17}', token)
        module.opsets = opsets
        weights = header.pop("weights", None)
        module.header = header
        if weights is None or self._open_sidecar is None:
            return
        if not isinstance(weights, str):
            raise self.source.error("'weights' is the name of a file, in quotes", token)
        try:
            self.resolve = self._open_sidecar(weights)
        except QdqcError as error:
            d = error.diagnostic
            raise self.source.error(d.message, token, notes=d.notes) from None

    def constant(self, items: list[Any]) -> None:
        token: Token = items[0]
        type: Type = items[1]
        contents: Contents = items[2]
        name = self._new_name(token)
        data = self.make_data(type, contents)
        self._begun.add_constant(name, data, type if isinstance(type, TensorType) else None)

    def inputs(self, items: list[Any]) -> list[Any]:
        return items

    input = outputs = operands = results = types = loc = graphs = inputs

    def graph_head(self, items: list[Any]) -> None:
        inputs, outputs = items
        if len(self._open) >= DEEPEST:
            raise QdqcError("graphs are nested too deep", file=self.source.file)
        graph = Graph(self._begun) if self._open else self._begun.graph
        for token, type, attrs in inputs:
            name = self._new_name(token)
            graph.add_input(name, type, self.mapping([attrs]) if attrs else None)
        self._open.append((graph, outputs))

    def graph(self, _items: list[Any]) -> Graph:
        graph, outputs = self._open.pop()
        graph.set_outputs([self._value(token) for token in outputs])
        return graph

    def mode(self, items: list[Token]) -> str:
        return str(items[0])

    def node(self, items: list[Any]) -> None:
        results, op_token, operands, attributes, types, graphs, mode, loc = items
        position = self.source.position(op_token)
        op = self._op(op_token, attributes or {})
        values = [None if t is None else self._value(t) for t in operands]
        names, result_types = self._results(op, results, types or [], op_token)
        try:
            self._open[-1][0].insert(
                op,
                values,
                result_types,
                names,
                loc=Loc(tuple(loc) if loc else UNKNOWN.names, position),
                mode=mode,
                graphs=graphs or (),
            )
        except ValueError as error:
            raise self.source.error(str(error), op_token, node=op.name) from None

    def _op(self, token: Token, attributes: dict[str, Any]) -> Op:
        cls = OPS.get(token)
        if cls is None:
            hint = suggestion(token, OPS.names())
            raise self.source.error(f"unknown op '{token}'{hint}", token)
        try:
            return decode(cls, attributes, f"'{token}'")
        except FieldError as error:
            places = [k for k in attributes if isinstance(k, Token) and f"'{k}'" in str(error)]
            raise self.source.error(str(error), (places or [token])[0]) from None

    def _results(
        self, op: Op, tokens: Sequence[Token], types: Sequence[Type], at: Token
    ) -> tuple[list[str | None], list[Type | None]]:
        """Names and types, as many as the op has results; None for absent ones."""
        present = [t for t in tokens if t != "_"]
        if len(present) != len(types):
            raise self.source.error(
                f"names of results: {len(present)}, types of results: {len(types)}", at
            )
        following = iter(types)
        names = [None if t == "_" else self._new_name(t) for t in tokens]
        by_name = [None if name is None else next(following) for name in names]
        fixed = sum(not spec.variadic for spec in op.result_specs)
        missing = max(0, fixed - len(names))
        return names + [None] * missing, by_name + [None] * missing

    def _name(self, token: Token) -> str:
        text = token[1:]
        return self.unquoted(token, text) if text[0] == '"' else text

    def _new_name(self, token: Token) -> str:
        name = self._name(token)
        present = self._begun.value(name)
        if present is not None:
            raise self.source.error(
                f"{print_name(name)} is defined twice", token, notes=[_first_definition(present)]
            )
        return name

    def _value(self, token: Token) -> Value:
        name = self._name(token)
        value = self._begun.value(name)
        if value is None:
            hint = suggestion(name, self._begun.value_names())
            raise self.source.error(f"{print_name(name)} is not defined here{hint}", token)
        return value


def _first_definition(value: Value) -> str:
    producer: Node[Any] | None = value.producer
    if producer is None:
        return f"{value} is {'an input' if value.is_input else 'a constant'} already"
    place = producer.loc.position
    return f"{value} is a result of '{producer.op.name}'" + (f" at {place}" if place else "")
