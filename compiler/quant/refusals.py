"""Why a product stays float in a mode whose integers other passes than ``quantize`` lay."""

from __future__ import annotations

from typing import Any

from qdqc.ir.core import Constant, Node
from qdqc.ir.types import Elem
from qdqc.ops import LSTM, RECURRENT, Conv, ConvTranspose, Gemm, MatMul
from qdqc.quant.targets.target import Target

__all__ = ["NESTED_MODES", "dynamic_refusal", "mode_reason"]

NESTED_MODES = ("DYN8", "W8", "W4")
"""Modes that reach into the graphs of an If, Loop or Scan: they ask for no calibrated range."""


def mode_reason(node: Node[Any], mode: str, target: Target) -> str:
    """Why a node of a mode other than INT8 is float, once the passes of its mode have run."""
    refusal, op, owner = None, node.op, node.graph.owner
    if owner is not None and mode not in (*NESTED_MODES, "F32"):
        refusal = f"it is in a graph that '{owner.op.name}' chooses or repeats as it runs"
    elif isinstance(op, (Conv, ConvTranspose, Gemm, MatMul, *RECURRENT)):
        if mode == "DYN8":
            refusal = dynamic_refusal(node, target)
            stored = any(v is not None and v.quant for v in map(node.at, node.traits.stored))
            refusal = f"{refusal}; its weights are stored in 8 bits" if stored else refusal
        elif mode in ("W8", "W4") and not isinstance(node.at(1), Constant):
            refusal = "the weight is not a constant"
    taken = f"its mode is {mode}"
    return taken if refusal is None else f"{mode} can't take it: {refusal}"


def dynamic_refusal(node: Node[Any], target: Target) -> str | None:
    """Why DYN8 leaves a node float; None for a product whose activations it can quantize."""
    op, weight = node.op, node.at(1)
    if isinstance(op, RECURRENT):
        return _recurrent_refusal(node, target)
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
    if isinstance(op, Conv) and node.graph.owner is not None:
        return "in a nested graph it stays float, which is faster than finding its scale"
    return None


def _recurrent_refusal(node: Node[Any], target: Target) -> str | None:
    """onnxruntime's kernel takes all that an LSTM may have but layout 1."""
    op, weights = node.op, [node.at(i) for i in node.traits.stored]
    if not weights:
        return "the operands are not f32"
    if not isinstance(op, LSTM) or not target.dynamic_lstm:
        return f"{target.runtime} has no kernel of '{op.name}' whose scale the run finds"
    if op.layout:
        return "the batch comes first (layout 1)"
    if not all(isinstance(w, Constant) and w.data.size and not w.data.is_elided for w in weights):
        return "the weight is not a constant, or is empty"
    return None
