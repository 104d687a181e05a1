"""Why a product stays float in a mode whose integers other passes than ``quantize`` lay."""

from __future__ import annotations

from typing import Any

from qdqc.ir.core import Constant, Node
from qdqc.ir.types import Elem
from qdqc.ops import Conv, ConvTranspose, Gemm, MatMul

__all__ = ["dynamic_refusal", "mode_reason"]


def mode_reason(node: Node[Any], mode: str) -> str:
    """Why a node of a mode other than INT8 is float, once the passes of its mode have run."""
    refusal = None
    if isinstance(node.op, Conv | ConvTranspose | Gemm | MatMul):
        if mode == "DYN8":
            refusal = dynamic_refusal(node)
        elif mode in ("W8", "W4") and not isinstance(node.at(1), Constant):
            refusal = "the weight is not a constant"
    taken = f"its mode is {mode}"
    return taken if refusal is None else f"{mode} can't take it: {refusal}"


def dynamic_refusal(node: Node[Any]) -> str | None:
    """Why DYN8 leaves a node float; None for a product whose activations it can quantize."""
    op, weight = node.op, node.at(1)
    if not isinstance(op, MatMul | Gemm | Conv):
        return "no product"
    if not isinstance(weight, Constant) or weight.data.is_elided:
        return "the weight is not a constant"
    quant = weight.tensor.quant
    if (quant is not None and quant.block) or (
        not isinstance(op, Conv) and weight.tensor.rank != 2
    ):
        return "the weight is not a matrix, or has scales of its own"
    x = node.at(0)
    if x is None or weight.tensor.expressed().elem is not Elem.F32 or x.tensor.elem is not Elem.F32:
        return "the operands are not f32"
    if isinstance(op, Gemm) and (op.trans_a or op.alpha != 1 or op.beta != 1):
        return "the first operand is transposed, or alpha and beta are not 1"
    if isinstance(op, Conv) and not isinstance(node.operand("bias"), Constant | None):
        return "the bias is not a constant"
    return None
