"""quantize-dynamic: products of mode DYN8 take their activations' scale as they run."""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.ir.core import Constant, Node, Value
from compiler.ir.data import Data
from compiler.ir.graph import Graph
from compiler.ir.types import Elem
from compiler.ops import Add, Cast, Clip, DynamicQuantizeLinear, Gemm, MatMul, MatMulInteger, Mul
from compiler.pipeline.pass_ import Pass, PassContext
from compiler.quant.arithmetic import quantize, weight_quant
from compiler.quant.splice import Splice

__all__ = ["QuantizeDynamic"]


class QuantizeDynamic(Pass):
    """Let MatMul and Gemm of mode DYN8 run in integers whose scale is found as they run.

    x @ W + b = cast((x_q - z_x) @ W_q) * (s_x s_W) + b, where x_q, s_x and z_x come from one
    dynamic_quantize_linear for all readers of x, and W_q is i8 per output channel. onnxruntime
    makes DynamicQuantizeMatMul of this spelling. Other ops of the mode stay float.
    """

    name = "quantize-dynamic"

    def run(self, graph: Graph, ctx: PassContext) -> int:
        casts: dict[Value, Node[Any]] = {}
        planned = [n for n in graph.nodes() if n.mode == "DYN8"]
        changes = 0
        for node in planned:
            if _refusal(node) is None:
                _lay(node, casts)
                changes += 1
        ctx.statistics["dynamic products"] += changes
        return changes + graph.module.drop_unused_constants()


def _refusal(node: Node[Any]) -> str | None:
    """Why a node stays float; None for a product that can be laid."""
    op, weight = node.op, node.at(1)
    if not isinstance(op, MatMul | Gemm):
        return "no product of matrices"
    if not isinstance(weight, Constant) or weight.data.is_elided:
        return "the weight is no constant"
    if weight.tensor.rank != 2 or weight.tensor.quant is not None:
        return "the weight is no float matrix"
    x = node.at(0)
    if x is None or weight.tensor.elem is not Elem.F32 or x.tensor.elem is not Elem.F32:
        return "the operands are not f32"
    if isinstance(op, Gemm) and (op.trans_a or op.alpha != 1 or op.beta != 1):
        return "the first operand is transposed, or alpha and beta are not 1"
    return None


def _lay(node: Node[Any], casts: dict[Value, Node[Any]]) -> None:
    op, x, weight, bias = node.op, node.at(0), node.at(1), node.at(2)
    assert x is not None
    assert isinstance(weight, Constant)
    splice = Splice(node)
    if x not in casts:
        casts[x] = splice.node_of(DynamicQuantizeLinear(), x)
    stored, x_scale, x_zero = casts[x].present_results
    array = weight.data.array()
    array = array.T if isinstance(op, Gemm) and op.trans_b else array
    quant = weight_quant(np.ascontiguousarray(array), 1, Elem.I8.limits[1])
    module = node.graph.module
    name = module.fresh_name(f"{weight.name}_i8")
    integers = module.add_constant(name, Data.of(quantize(array, quant, Elem.I8, narrow=True)))
    sums = splice.op(MatMulInteger(), stored, integers, x_zero)
    scale = splice.op(Mul(), x_scale, splice.constant(quant.scale, "scale"))
    steps: list[tuple[Any, list[Value]]] = [(Mul(), [splice.op(Cast(to="f32"), sums), scale])]
    if bias is not None:
        steps.append((Add(), [bias]))
    if op.clamp is not None:
        steps.append((Clip(min=op.clamp[0], max=op.clamp[1]), []))
    last: list[Value] = []
    for index, (step, operands) in enumerate(steps):
        make = splice.finish if index == len(steps) - 1 else splice.op
        last = [make(step, *last, *operands)]
