"""Evaluates nodes that depend on constants alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.graph import Module
from qdqc.runtime.sessions.session import Runner

__all__ = ["evaluate"]


def evaluate(nodes: Sequence[Node[Any]], wanted: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """The values of that names, computed by onnxruntime without its optimisations.

    The nodes stand in order and read constants and each other only. Raises QdqcError where
    onnxruntime can't compute them.
    """
    source = nodes[0].graph.module
    module = Module("folded", dict(source.opsets))
    values: dict[Value, Value] = {}
    for node in nodes:
        for value in node.present_operands:
            if isinstance(value, Constant) and value not in values:
                values[value] = module.add_constant(value.name, value.data, value.tensor)
    for node in nodes:
        made = module.graph.insert(
            node.op,
            [None if v is None else values[v] for v in node.operands],
            [None if r is None else r.type for r in node.results],
            [None if r is None else r.name for r in node.results],
            loc=node.loc,
        )
        for original, copy in zip(node.results, made.results, strict=True):
            if original is not None and copy is not None:
                values[original] = copy
    outputs = [module.value(name) for name in wanted]
    module.graph.set_outputs([v for v in outputs if v is not None])
    return Runner(module, optimise="off", threads=1).run({})
