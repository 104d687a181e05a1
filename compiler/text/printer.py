"""Prints the canonical text form, which ``parser.py`` reads back as an equal module."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.fields import encode
from qdqc.ir.graph import Graph, Module
from qdqc.ir.spelling import (
    print_bare,
    print_data,
    print_entries,
    print_name,
    print_string,
    print_type,
    print_value,
)

__all__ = ["module_lines", "print_module", "print_name", "print_node", "print_type", "print_value"]

_INDENT = "  "


def print_module(module: Module, *, elide: bool = False, weights: str | None = None) -> str:
    """The whole text of a module, with a line end behind the last line.

    ``elide`` leaves the contents of larger constants out, ``weights`` is the sidecar's file
    name for the header. Raises SpellingError for an attribute that has no text form.
    """
    return "\n".join(module_lines(module, elide=elide, weights=weights)) + "\n"


def module_lines(
    module: Module, *, elide: bool = False, weights: str | None = None
) -> Iterator[str]:
    """The lines of ``print_module``, one by one."""
    header: dict[str, Any] = {"opsets": module.opsets} if module.opsets else {}
    header |= module.header
    if weights is not None:
        header["weights"] = weights
    entries = f" {print_value(header, elide=elide)}" if header else ""
    yield f"module @{print_bare(module.name)}{entries} {{"
    for constant in module.constants.values():
        yield f"{_INDENT}{print_constant(constant, elide=elide)}"
    yield from _graph_lines(module.graph, _INDENT, elide)
    yield "}"


def print_constant(constant: Constant, *, elide: bool = False) -> str:
    """``const %w : f32[2] = dense[1, 2]``."""
    type_text = print_type(constant.type, elide)
    return f"const {print_name(constant.name)} : {type_text} = {print_data(constant.data, elide)}"


def print_node(node: Node[Any], *, elide: bool = False) -> str:
    """A node with its nested graphs, not indented."""
    return "\n".join(_node_lines(node, "", elide))


def _graph_lines(graph: Graph, indent: str, elide: bool) -> Iterator[str]:
    inputs = ", ".join(_input(graph, value, elide) for value in graph.inputs)
    outputs = ", ".join(print_name(value.name) for value in graph.outputs)
    yield f"{indent}graph ({inputs}) -> ({outputs}) {{"
    for node in graph.nodes():
        yield from _node_lines(node, indent + _INDENT, elide)
    yield f"{indent}}}"


def _input(graph: Graph, value: Value, elide: bool) -> str:
    text = f"{print_name(value.name)} : {print_type(value.type, elide)}"
    attrs = graph.input_attrs.get(value.name)
    return f"{text} {print_value(attrs, elide=elide)}" if attrs else text


def _node_lines(node: Node[Any], indent: str, elide: bool) -> Iterator[str]:
    text = f"{indent}{_results(node)} = {node.op.name}({_operands(node)})"
    attributes = encode(node.op, elide)
    if attributes:
        text += f" {print_entries(attributes)}"
    types = ", ".join(print_type(value.type, elide) for value in node.present_results)
    if types or node.graphs:
        text += f" : {types}" if types else " :"
    if not node.graphs:
        yield text + _suffix(node)
        return
    yield text + " {"
    for graph in node.graphs:
        yield from _graph_lines(graph, indent + _INDENT, elide)
    yield f"{indent}}}{_suffix(node)}"


def _results(node: Node[Any]) -> str:
    """Names of the results; trailing absent ones are left out."""
    results = list(node.results)
    while results and results[-1] is None:
        results.pop()
    return ", ".join("_" if v is None else print_name(v.name) for v in results) or "_"


def _operands(node: Node[Any]) -> str:
    return ", ".join("none" if v is None else print_name(v.name) for v in node.operands)


def _suffix(node: Node[Any]) -> str:
    text = f" mode({node.mode})" if node.mode else ""
    if node.loc.names:
        text += f" loc({', '.join(print_string(name) for name in node.loc.names)})"
    return text
