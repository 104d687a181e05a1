"""Nodes that ONNX has no single node for, written out with nodes that it has."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from qdqc.ir.core import Node, Value
from qdqc.ir.expansion import Parts
from qdqc.ir.op import Op
from qdqc.ops.activation import Clip, Relu
from qdqc.ops.elementwise import Max, Min
from qdqc.ops.matmul import Gemm, MatMul
from qdqc.ops.quant import Dequantize, Quantize

__all__ = ["expand", "may_expand"]


def may_expand(node: Node[Any]) -> bool:
    """Whether a node has a written-out form at some opset."""
    return node.op.clamp is not None or type(node.op).expand is not Op.expand


def _clamped(parts: Parts, x: Value, low: float, high: float) -> Value:
    return parts.op(Relu() if low == 0 and math.isinf(high) else Clip(min=low, max=high), x)


def _bounded(parts: Parts, x: Value, low: float, high: float) -> Value:
    """min(max(x, low), high), the clamp in other words."""
    for op, bound in ((Max(), low), (Min(), high)):
        if math.isfinite(bound):
            x = parts.op(op, x, parts.number(bound, op.name))
    return x


def _keeps_from_kernel(node: Node[Any]) -> bool:
    """Whether an activation would keep a product of integers in float on onnxruntime.

    It takes a Relu or Clip behind the product for a part of the integer kernel, finds no
    QuantizeLinear behind it, and leaves all in float. An output of the graph is no such part.
    """
    if not isinstance(node.op, MatMul | Gemm) or node.result.is_output:
        return False
    makers = (v.producer for v in node.present_operands)
    integer = any(isinstance(m.op, Dequantize) for m in makers if m is not None)
    return integer and not any(isinstance(user.op, Quantize) for user in node.result.users)


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
        bare = replace(node.op, clamp=None)
        product = parts.op(bare, *parts.operands, name=f"{node.name}_preact")
        made = (_bounded if _keeps_from_kernel(node) else _clamped)(parts, product, *clamp)
    if made is None:
        return None
    parts.module.graph.set_outputs([made])
    return parts
