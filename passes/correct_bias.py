"""correct-bias: biases take up the mean of what rounding the weights does to the results."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from qdqc.calibration.channels import CHANNEL_AXIS
from qdqc.calibration.table_pass import TablePass
from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.data import Data
from qdqc.ir.graph import Graph
from qdqc.ops import Conv, Gemm
from qdqc.pipeline.pass_ import PassContext
from qdqc.quant.arithmetic import dequantize, quantize, weight_quant
from qdqc.quant.placement import Decision, decide
from qdqc.quant.targets.target import Target, target_named

__all__ = ["CorrectBias"]


_AT_ONCE = 1 << 22
"""Weights that are worked on at a time."""


class CorrectBias(TablePass):
    """Shift biases by the mean error of the rounded weights, from calibrated channel means.

    A weight that is rounded by ``dW = W - round(W)`` shifts output channel o of a convolution by
    ``sum_k dW[o, k] * E[x_k]`` on average; the bias takes the shift back: b' = b + dW E[x].
    E[x] are the means per channel of the calibration table; padding counts as data. (Nagel et
    al., Data-Free Quantization Through Weight Equalization and Bias Correction, 2019, section
    4.2, with measured means.)
    """

    name = "correct-bias"

    target: str = "ort-cpu"
    scheme: str = "per-channel"

    def run(self, graph: Graph, ctx: PassContext) -> int:
        target = target_named(self.target)
        means = self.calibration(ctx).channel_means
        changes = 0
        for node, decision in decide(graph, target).items():
            x = node.at(0)
            if not decision.integer or not isinstance(node.op, Conv | Gemm) or x is None:
                continue
            mean = means.get(x.name)
            if _has_integer_weight(node, decision):
                continue
            if mean is None or not _fits(mean, x, node):
                ctx.statistics["without channel means"] += 1
                continue
            self._correct(node, decision, np.array(mean), target)
            changes += 1
        ctx.statistics["biases corrected"] += changes
        return changes + graph.module.drop_unused_constants()

    def _correct(
        self,
        node: Node[Any],
        decision: Decision,
        mean: npt.NDArray[np.float64],
        target: Target,
    ) -> None:
        traits = decision.traits
        weight, bias = node.at(traits.weight), node.at(traits.bias)
        assert isinstance(weight, Constant)
        assert traits.bias is not None
        array = weight.data.array()
        axis = traits.axis if self.scheme == "per-channel" else None
        quant = weight_quant(array, axis, target.weight_limit)
        rounded = dequantize(quantize(array, quant, target.weight, narrow=True), quant)
        lost = np.subtract(array, rounded, out=rounded)
        shift = _shift(node, lost, mean)
        before = bias.data.array().astype(np.float64) if isinstance(bias, Constant) else 0.0
        module = node.graph.module
        name = module.fresh_name(f"{node.name}_bias_corrected")
        made = module.add_constant(name, Data.of((before + shift).astype(np.float32)))
        operands = [*node.operands, *[None] * (traits.bias + 1 - len(node.operands))]
        operands[traits.bias] = made
        node.set_operands(operands)


def _has_integer_weight(node: Node[Any], decision: Decision) -> bool:
    """Whether the weight was integer before: what rounding it lost is not known."""
    weight = node.at(decision.traits.weight)
    return weight is not None and weight.tensor.quant is not None


def _fits(mean: tuple[float, ...], x: Value, node: Node[Any]) -> bool:
    """Whether the table's means are those of the channels that the node reads."""
    shape = x.tensor.shape
    transposed = isinstance(node.op, Gemm) and node.op.trans_a
    return shape is not None and not transposed and shape[CHANNEL_AXIS] == len(mean)


def _shift(
    node: Node[Any], lost: npt.NDArray[np.float32], mean: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """DW E[x] for every output channel: [outputs]."""
    if isinstance(node.op, Gemm):
        rows = lost if node.op.trans_b else lost.T
        parts = range(0, len(rows), max(1, _AT_ONCE // max(1, rows.shape[1])))
        step = parts.step
        return np.concatenate([rows[i : i + step].astype(np.float64) @ mean for i in parts])
    group = node.op.group
    taps = lost.reshape(*lost.shape[:2], -1).sum(axis=2, dtype=np.float64)
    by_group = taps.reshape(group, -1, taps.shape[1])
    return np.einsum("gok,gk->go", by_group, mean.reshape(group, -1)).reshape(-1)
