"""Puts several nodes in the place of one."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.data import Data
from qdqc.ir.op import Op

__all__ = ["Splice"]


class Splice:
    """Makes nodes before ``node``; the last one takes over its name, its range and its readers."""

    def __init__(self, node: Node[Any]) -> None:
        self.node = node
        self.module = node.graph.module

    def node_of(self, op: Op, *operands: Value | None) -> Node[Any]:
        """A node with its results, named after the node and the op."""
        base = f"{self.node.name}_{op.name}"
        names = [self.module.fresh_name(f"{base}{s}") for s in ("", "_scale", "_zero")]
        names = names[: len(op.results)]
        return self.node.graph.insert(
            op, operands, None, names, loc=self.node.loc, mode="F32", before=self.node
        )

    def op(self, op: Op, *operands: Value | None) -> Value:
        """A node with one result."""
        return self.node_of(op, *operands).result

    def constant(self, array: npt.ArrayLike, label: str) -> Constant:
        """A constant named after the node."""
        name = self.module.fresh_name(f"{self.node.name}_{label}")
        return self.module.add_constant(name, Data.of(np.asarray(array)))

    def finish(self, op: Op, *operands: Value | None) -> Value:
        """The node that gives the result; the old one goes."""
        old = self.node.result
        name, range_ = old.name, old.tensor.range
        made = self.op(op, *operands)
        made.type = made.tensor.with_range(range_)
        old.replace_uses(made)
        self.node.graph.erase(self.node)
        made.rename(name)
        return made
