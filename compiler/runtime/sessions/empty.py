"""Empty values in the layers over which onnxruntime ends the process instead of the run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from qdqc.diagnostics import QdqcError
from qdqc.ir.dims import Dim, Expr
from qdqc.ir.graph import Module, Node
from qdqc.ir.types import TensorType
from qdqc.ops.recurrent import GRU, LSTM, DynamicQuantizeLSTM

__all__ = ["EmptySteps"]


class EmptySteps:
    """The sizes that onnxruntime needs some of: the batch of a GRU or LSTM, and a GRU's steps.

    Its threads end the process over an empty one, which no caller can catch.
    """

    def __init__(self, module: Module) -> None:
        """Raises QdqcError, located, for sizes that are 0 whatever the inputs are."""
        self._needed = [(node, dim) for node in module.walk() for dim in _needed(node)]
        self._shapes = {
            value.name: value.type.shape or ()
            for value in module.graph.inputs
            if isinstance(value.type, TensorType)
        }
        self.check({})

    def check(self, feeds: Mapping[str, Any]) -> None:
        """Raises QdqcError for sizes that these inputs make 0."""
        if not self._needed:
            return
        sizes = {
            str(dim): size
            for name in self._shapes.keys() & feeds.keys()
            for dim, size in zip(self._shapes[name], np.shape(feeds[name]), strict=False)
            if isinstance(dim, Expr) and str(dim) in dim.symbols()
        }
        for node, dim in self._needed:
            if (dim.substitute(sizes) if isinstance(dim, Expr) else dim) == 0:
                raise QdqcError(
                    f"'{node.need('x').name}' is empty, and onnxruntime ends over an empty one",
                    node=node.op.name,
                    loc=node.loc,
                    notes=["give inputs of which each dimension has at least one element"],
                )


def _needed(node: Node[Any]) -> Iterator[Dim]:
    op = node.op
    if not isinstance(op, GRU | LSTM | DynamicQuantizeLSTM):
        return
    type_ = node.need("x").type
    if not isinstance(type_, TensorType) or type_.shape is None:
        return
    steps, batch = type_.shape[:2]
    if isinstance(op, GRU | LSTM) and op.layout:
        steps, batch = batch, steps
    yield batch
    if isinstance(op, GRU):
        yield steps
