"""Which numbers the readers of a value tell apart: beyond them its integers need not reach."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from qdqc.ir.core import Node, Value
from qdqc.ir.graph import Graph
from qdqc.ir.op import Kind

__all__ = ["Domain", "domains_by_name", "live_domains", "live_part"]

Domain: TypeAlias = tuple[float, float]

_ALL: Domain = (-math.inf, math.inf)


def live_domains(graph: Graph) -> dict[Value, Domain]:
    """The live domain of each value that has bounds: the least interval with those of all readers.

    An op states its own (``Op.live``); what only moves or selects elements has the one of its
    result. A reader in a nested graph, and being an output of a graph, bounds nothing.
    """
    domains: dict[Value, Domain] = {}
    for node in reversed(list(graph.nodes())):
        for result in node.present_results:
            domains[result] = _joined(result, graph, domains)
    domains |= {value: _joined(value, graph, domains) for value in graph.inputs}
    return {value: domain for value, domain in domains.items() if domain != _ALL}


def domains_by_name(graph: Graph) -> dict[str, Domain]:
    """The live domains of what the nodes make. An input is given as it is."""
    return {v.name: d for v, d in live_domains(graph).items() if not v.is_input}


def live_part(array: npt.NDArray[Any], domain: Domain | None) -> npt.NDArray[Any]:
    """Floats clipped to a domain; without one, and what is no float, as it is."""
    if domain is None or array.dtype.kind != "f":
        return array
    return np.clip(array, *domain, dtype=array.dtype)


def _joined(value: Value, graph: Graph, domains: dict[Value, Domain]) -> Domain:
    read = [
        _of(use.user, use.index, domains)
        if isinstance(use.user, Node) and use.user.graph is graph
        else _ALL
        for use in value.uses
    ]
    if not read:
        return _ALL
    lows, highs = zip(*read, strict=True)
    return min(lows), max(highs)


def _of(node: Node[Any], index: int, domains: dict[Value, Domain]) -> Domain:
    if index != 0:
        return _ALL
    own = node.op.live()
    if own is not None:
        return own
    results = node.present_results
    if node.traits.kind is not Kind.PRESERVING or not results:
        return _ALL
    lows, highs = zip(*(domains.get(r, _ALL) for r in results), strict=True)
    return min(lows), max(highs)
