"""Nodes that ONNX has no single node for, written out with nodes that it has."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from qdqc.ir.core import Node
from qdqc.ir.expansion import Parts
from qdqc.ir.op import Op
from qdqc.ops.activation import Clip, Relu

__all__ = ["expand", "may_expand"]


def may_expand(node: Node[Any]) -> bool:
    """Whether a node has a written-out form at some opset."""
    return node.op.clamp is not None or type(node.op).expand is not Op.expand


def expand(node: Node[Any]) -> Parts | None:
    """The nodes that write one out, with the result as the output; None where there are none.

    A fused activation becomes a node of its own; anything else is up to the op's ``expand``.
    What comes out may have a written-out form again.
    """
    parts = Parts(node)
    clamp = node.op.clamp
    if clamp is None:
        made = node.op.expand(parts, *parts.operands)
    else:
        low, high = clamp
        activation = Relu() if low == 0 and high == float("inf") else Clip(min=low, max=high)
        bare = replace(node.op, clamp=None)
        made = parts.op(activation, parts.op(bare, *parts.operands, name=f"{node.name}_preact"))
    if made is None:
        return None
    parts.module.graph.set_outputs([made])
    return parts
