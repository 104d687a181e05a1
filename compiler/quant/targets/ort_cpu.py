"""onnxruntime's CPU execution provider on x64 with VNNI.

u8 activations with a free zero point, s8 weights per output channel, int32 biases with scale
s_x * s_w. Only patterns that onnxruntime is known to turn into integer kernels are written.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qdqc.ir.core import Constant, Node
from qdqc.ir.data import Data
from qdqc.ir.op import Kind, QuantTraits
from qdqc.ir.types import Elem, Range, TensorType
from qdqc.ops import Add, Gemm, HardSigmoid, MatMul, Restate
from qdqc.quant.arithmetic import activation_quant, quantize
from qdqc.quant.clips import bounds_of
from qdqc.quant.lines import Line
from qdqc.quant.targets.ort_cpu_costs import OrtCpuCosts
from qdqc.quant.targets.target import Target

__all__ = ["OrtCpu"]


class OrtCpu(Target):
    """Adds the conditions of QGemm and QLinearMatMul, and two spellings."""

    name = "ort-cpu"
    activation = Elem.U8
    weight = Elem.I8
    bias = Elem.I32
    dynamic_lstm = True
    weighted = frozenset({"conv", "gemm", "matmul"})
    arithmetic = frozenset(
        {
            "add",
            "average_pool",
            "concat",
            "global_average_pool",
            "hard_sigmoid",
            "leaky_relu",
            "mul",
            "sigmoid",
        }
    )
    preserving = frozenset(
        {
            "expand",
            "flatten",
            "gather",
            "identity",
            "max_pool",
            "reshape",
            "slice",
            "split",
            "squeeze",
            "tile",
            "transpose",
            "unsqueeze",
        }
    )
    float_result = frozenset({"gemm", "matmul"})
    rules = frozenset(
        {
            "activation-scale",
            "activation-type",
            "bias-overflow",
            "bias-scale",
            "bias-type",
            "clip-range",
            "gemm-form",
            "kernel",
            "matmul-bias",
            "operands",
            "relu-zero-point",
            "result",
            "shared-scale",
            "weight-axis",
            "weight-range",
            "weight-symmetric",
            "weight-type",
        }
    )
    preferences = (
        *("kernel", "operands", "result", "matmul-bias"),
        *("weight-type", "weight-symmetric", "activation-type"),
    )

    costs = OrtCpuCosts()

    def refusal(self, node: Node[Any], traits: QuantTraits) -> str | None:
        if traits.kind is Kind.PRODUCT:
            return (
                "products of two activations stay float: in integers they lose accuracy for no time"
            )
        if isinstance(node.op, HardSigmoid) and node.op.alpha <= 0:
            return "integers of a falling line have no kernel"
        return super().refusal(node, traits) or _gemm_refusal(node) or _clamp_refusal(node)

    def spell(self, node: Node[Any]) -> int:
        if isinstance(node.op, HardSigmoid) and node.result.tensor.quant is not None:
            return _spell_hard_sigmoid(node, self.activation)
        return _spell_bias(node)


def _spell_hard_sigmoid(node: Node[Any], elem: Elem) -> int:
    """clip(a x + b, 0, 1) = restate(x) + b, whose integers saturate at 0 and 1.

    onnxruntime has no integer HardSigmoid. The integers of x under the scale ``a s_x`` are a x;
    of a result with scale 1/255 and zero point 0 none is beyond the bounds.
    """
    x, op = node.need("x"), node.op
    assert x.tensor.quant is not None
    module, graph = node.graph.module, node.graph
    scaled = Line(x, op.alpha).restated(x.tensor.quant, elem)
    assert scaled is not None
    inner = graph.insert(
        Restate(),
        [x],
        [x.tensor.with_quant(elem, scaled)],
        [module.fresh_name(f"{node.name}_scaled")],
        loc=node.loc,
        before=node,
    ).result
    beta_range = Range(min(op.beta, 0.0), max(op.beta, 0.0), abs(op.beta))
    beta_quant = activation_quant(beta_range, elem)
    stored = quantize(np.array(op.beta, np.float32), beta_quant, elem)
    type_ = TensorType(elem, (), beta_quant)
    beta = module.add_constant(module.fresh_name(f"{node.name}_beta"), Data.of(stored, elem), type_)
    node.op = Add()
    node.set_operands([inner, beta])
    return 1


def _spell_bias(node: Node[Any]) -> int:
    """Keep ``matmul(x, W, bias[N])`` out of onnxruntime's MatMul + Add to Gemm rewrite.

    On static shapes of rank 3 or more that rewrite comes before the integer rules and leaves the
    product float; a bias of shape [1,N] does not match it.
    """
    if not isinstance(node.op, MatMul) or node.need("a").tensor.quant is None:
        return 0
    bias, shape = node.operand("bias"), node.result.tensor.static_shape
    if not isinstance(bias, Constant) or len(bias.data.shape) != 1:
        return 0
    if shape is None or len(shape) < 3:
        return 0
    node.set_operand(2, _reshaped(bias))
    return 1


def _reshaped(value: Constant) -> Constant:
    module = value.module
    array = value.data.array().reshape(1, -1)
    return module.add_constant(module.fresh_name(f"{value.name}_row"), Data.of(array))


def _gemm_refusal(node: Node[Any]) -> str | None:
    op = node.op
    if not isinstance(op, Gemm):
        return None
    if op.trans_a:
        return "the first operand is transposed"
    if op.alpha != 1 or op.beta != 1:
        return "alpha and beta are not 1"
    bias = node.operand("c")
    if bias is not None and bias.tensor.rank != 1:
        return "the bias is not one number per output"
    return None


def _clamp_refusal(node: Node[Any]) -> str | None:
    clamp = bounds_of(node)
    if clamp is None or clamp[0] <= 0 <= clamp[1]:
        return None
    return "its clamp leaves out zero, which the integers must hold"
