"""quantize-weights: weights and tables are stored as integers, numbers stay float."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np

from qdqc.diagnostics import QdqcError
from qdqc.ir.core import Constant, Node
from qdqc.ir.data import Data
from qdqc.ir.graph import Graph
from qdqc.ir.op import Kind
from qdqc.ir.types import Array, Elem, Quant, TensorType
from qdqc.ops import Cast, Gather, MatMul, Mul
from qdqc.pipeline.pass_ import Pass, PassContext
from qdqc.quant.arithmetic import block_quant, quantize, row_quant, weight_quant
from qdqc.quant.finite import is_finite
from qdqc.quant.refusals import dynamic_refusal
from qdqc.quant.splice import Splice
from qdqc.quant.targets.target import Target, target_named

__all__ = ["QuantizeWeights"]

_TABLES = {"W8": 0, "W4": 0, "INT8": 4096, "DYN8": 4096}
"""Least elements of a table that takes 8 bits, by the mode of the node that reads it: a small one
is not worth the nodes."""


class QuantizeWeights(Pass):
    """Store weights as integers where the arithmetic stays float: modes W8 and W4, and tables.

    W8: i8 per output channel, ``matmul(f32, i8) : f32``. W4: a MatMul's weight is u4 in blocks
    of ``group_size`` along its rows, whose scale and zero point have the least squared error;
    other weights, and those whose rows the blocks do not divide, take 8 bits. So do those of an
    LSTM, GRU or RNN, in DYN8 as well where the layer has no kernel that finds its scale. A table
    that a Gather reads takes 8 bits with a scale a row, in INT8 and DYN8 as well: the rows are
    picked as integers. Nested graphs are reached, too.
    """

    name = "quantize-weights"

    group_size: int = 32
    target: str = "ort-cpu"

    def run(self, graph: Graph, ctx: PassContext) -> int:
        if self.group_size < 16 or self.group_size & (self.group_size - 1):
            raise QdqcError(
                f"groups of {self.group_size} weights have no kernel",
                notes=["give a power of two from 16 on, such as 32"],
            )
        changes, target = 0, target_named(self.target)
        for node in list(graph.walk()):
            bits = self._store(node, target)
            if bits:
                ctx.statistics[f"weights of {bits} bits"] += 1
                changes += 1
        return changes + graph.module.drop_unused_constants()

    def _store(self, node: Node[Any], target: Target) -> int:
        """The bits that the node's weight takes from now on; 0 where it has none to store."""
        if isinstance(node.op, Gather):
            return _store_table(node)
        traits = node.traits
        if traits.stored and node.mode in ("W8", "W4", "DYN8"):
            return _store_rows(node, traits.stored, target)
        if node.mode not in ("W8", "W4"):
            return 0
        weight = node.at(traits.weight)
        if traits.kind is not Kind.WEIGHTED or traits.weight is None or not _is_float(weight):
            return 0
        array = weight.data.array()
        divides = array.shape[0] % self.group_size == 0
        if node.mode == "W4" and isinstance(node.op, MatMul) and divides:
            quant, elem = block_quant(array, self.group_size, Elem.U4), Elem.U4
        else:
            quant, elem = weight_quant(array, traits.axis, Elem.I8.limits[1]), Elem.I8
        stored = quantize(array, quant, elem, narrow=elem is Elem.I8)
        node.set_operand(traits.weight, _constant(weight, stored, elem, quant))
        return elem.bits


def _store_rows(node: Node[Any], stored: Sequence[int], target: Target) -> int:
    """Weights of a recurrent layer, those that are constants."""
    if node.mode == "DYN8" and dynamic_refusal(node, target) is None:
        return 0
    bits = 0
    for index in stored:
        weight = node.at(index)
        if not _is_float(weight) or not weight.data.size or weight.tensor.rank != 3:
            continue
        array = weight.data.array()
        quant = row_quant(array, Elem.I8.limits[1])
        integers = quantize(array, quant, Elem.I8, narrow=True)
        node.set_operand(index, _constant(weight, integers, Elem.I8, quant))
        bits = Elem.I8.bits
    return bits


def _is_float(value: object) -> TypeGuard[Constant]:
    """Whether a value is a float32 constant whose numbers are at hand."""
    return (
        isinstance(value, Constant)
        and value.elem is Elem.F32
        and value.quant is None
        and not value.data.is_elided
    )


def _constant(like: Constant, stored: Array, elem: Elem, quant: Quant | None) -> Constant:
    """The integer form of a constant; nodes that share the float one share it as well."""
    module, type_ = like.module, TensorType(elem, like.tensor.shape, quant)
    data = Data.of(stored, elem)
    name = f"{like.name}_{elem.text}"
    known = module.constants.get(name)
    if known is not None and known.type == type_ and np.array_equal(known.data.array(), stored):
        return known
    return module.add_constant(module.fresh_name(name), data, type_)


def _store_table(node: Node[Gather]) -> int:
    """gather(T, i) = cast(gather(T_i8, i)) * gather(s, i), with a scale s for each row of T."""
    table, indices = node.need("x"), node.need("indices")
    if not _is_float(table) or table.tensor.rank != 2 or node.op.axis != 0:
        return 0
    if not is_finite(table):
        return 0
    least = _TABLES.get(node.mode or "F32")
    if least is None or table.data.array().size < least:
        return 0
    array = table.data.array()
    quant = weight_quant(array, 0, Elem.I8.limits[1])
    stored = _constant(table, quantize(array, quant, Elem.I8, narrow=True), Elem.I8, None)
    splice = Splice(node)
    rows = splice.op(Cast(to="f32"), splice.op(Gather(), stored, indices))
    scales = splice.constant(np.asarray(quant.scale).reshape(-1, 1), "scale")
    splice.finish(Mul(), rows, splice.op(Gather(), scales, indices))
    return 8
