"""Some nodes of a module as a module of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.graph import Module

__all__ = ["excerpt"]


def excerpt(nodes: Sequence[Node[Any]], outputs: Sequence[str]) -> Module:
    """A module of some nodes alone, in order, that gives the values of the names ``outputs``.

    Constants that they read come along; other values that none of them makes are its inputs,
    whose ranges are left out. The nodes have no graphs. Names stay, as do types.
    """
    module = Module("excerpt", dict(nodes[0].graph.module.opsets))
    made = {result for node in nodes for result in node.present_results}
    copies: dict[Value, Value] = {}
    for value in (v for node in nodes for v in node.present_operands):
        if value in copies or value in made:
            continue
        if isinstance(value, Constant):
            copies[value] = module.add_constant(value.name, value.data, value.tensor)
        else:
            copies[value] = module.graph.add_input(value.name, value.tensor.with_range(None))
    for node in nodes:
        copy = module.graph.insert(
            node.op,
            [None if v is None else copies[v] for v in node.operands],
            [None if r is None else r.type for r in node.results],
            [None if r is None else r.name for r in node.results],
            loc=node.loc,
        )
        copies |= zip(node.present_results, copy.present_results, strict=True)
    given = (module.value(name) for name in outputs)
    module.graph.set_outputs([value for value in given if value is not None])
    return module
