"""fold-shapes: arithmetic on shapes becomes constants."""

from __future__ import annotations

import numpy as np

from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.data import Data
from qdqc.ir.graph import Graph
from qdqc.ir.types import Array, TensorType
from qdqc.ops import Reshape
from qdqc.passes.infer_shapes import infer_graph
from qdqc.pipeline.pass_ import Pass, PassContext
from qdqc.rewrite.driver import erase_dead
from qdqc.rewrite.layout import reshape_target

__all__ = ["FoldShapes"]


class FoldShapes(Pass):
    """Replace Shape, Slice, Concat, ... chains whose numbers are known by constants.

    Inference follows the contents of small integer tensors as dimensions. A tensor that comes
    out as numbers is a constant; a Reshape whose target has symbols takes them over from its
    input (0) or leaves one to be worked out (-1).
    """

    name = "fold-shapes"

    def run(self, graph: Graph, ctx: PassContext) -> int:
        changes = infer_graph(graph, ctx)
        for node in list(graph.walk()):
            if node.erased:
                continue
            if isinstance(node.op, Reshape):
                changes += _fold_target(node, ctx)
            else:
                changes += sum(_fold_value(r, ctx) for r in node.present_results)
        return changes


def _fold_value(value: Value, ctx: PassContext) -> int:
    type, node = value.type, value.producer
    if node is None or value.is_output or not value.is_used:
        return 0
    if not isinstance(type, TensorType) or type.value is None or type.shape is None:
        return 0
    numbers = [d for d in type.value if isinstance(d, int)]
    shape = type.static_shape
    if len(numbers) != len(type.value) or shape is None:
        return 0
    _replace(value, np.array(numbers, type.elem.dtype).reshape(shape))
    ctx.statistics["values folded"] += 1
    return 1


def _replace(value: Value, array: Array) -> None:
    module, node, name = value.module, value.producer, value.name
    made = module.add_constant(module.fresh_name(f"{name}_folded"), Data.of(array))
    value.replace_uses(made)
    if node is not None:
        erase_dead([node])
    if module.value(name) is None:
        made.rename(name)


def _fold_target(node: Node[Reshape], ctx: PassContext) -> int:
    """The target shape of a Reshape as a constant with 0 and -1 in place of symbols."""
    target = node.need("shape")
    type = target.type
    if isinstance(target, Constant) or not isinstance(type, TensorType) or type.value is None:
        return 0
    numbers = reshape_target(type.value, node.need("x").tensor.shape, node.op.allowzero)
    if numbers is None:
        return 0
    module = target.module
    made = module.add_constant(
        module.fresh_name(f"{node.name}_shape"), Data.of(np.array(numbers, np.int64))
    )
    producer = target.producer
    node.set_operand(1, made)
    if producer is not None:
        erase_dead([producer])
    ctx.statistics["reshape targets folded"] += 1
    return 1
