"""The nodes that write out one node, for ONNX versions that lack its op."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.data import Data
from qdqc.ir.graph import Module
from qdqc.ir.op import Op
from qdqc.ir.types import Elem

__all__ = ["Parts"]


class Parts:
    """A small module whose inputs are the operands of a node; its nodes make the result.

    An input bears the name of its operand, and no inner value does.
    """

    def __init__(self, node: Node[Any]) -> None:
        self.node = node
        self.module = Module("parts", dict(node.graph.module.opsets))
        self._inputs: dict[str, Value] = {}
        self.operands = tuple(None if v is None else self._input(v) for v in node.operands)

    def _input(self, value: Value) -> Value:
        if value.name not in self._inputs:
            self._inputs[value.name] = self.module.graph.add_input(value.name, value.type)
        return self._inputs[value.name]

    @property
    def elem(self) -> Elem:
        """The element type of the first operand."""
        x = self.node.at(0)
        return Elem.F32 if x is None else x.tensor.elem

    def op(self, op: Op, *operands: Value | None, name: str | None = None) -> Value:
        """A further node; its type is inferred."""
        wish = name if name is not None else f"{self.node.name}_{op.name}"
        fresh = self.module.fresh_name(wish)
        return self.module.graph.insert(op, operands, names=[fresh], loc=self.node.loc).result

    def number(self, value: npt.ArrayLike, label: str, elem: Elem | None = None) -> Constant:
        """A constant in the element type of the first operand, unless another is given."""
        wanted = elem or self.elem
        array = np.asarray(value).astype(wanted.dtype)
        name = self.module.fresh_name(f"{self.node.name}_{label}")
        return self.module.add_constant(name, Data.of(array, wanted))

    def shape(self, *dims: int) -> Constant:
        """The target of a Reshape."""
        return self.number(dims, "shape", Elem.I64)

    def axes(self, first: int) -> tuple[int, ...] | None:
        """The axes of the first operand from ``first`` on; None where they are unknown."""
        x = self.operands[0]
        if x is not None and x.shape is not None:
            return tuple(range(first % len(x.shape), len(x.shape)))
        return tuple(range(first, 0)) if first < 0 else None
