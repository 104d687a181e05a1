"""lower-to-qdq: quantized types become quantize and dequantize nodes."""

from __future__ import annotations

from qdqc.ir.graph import Graph
from qdqc.pipeline.pass_ import Pass, PassContext
from qdqc.quant.lowering import lower

__all__ = ["LowerToQdq"]


class LowerToQdq(Pass):
    """Spell out quantized types as quantize and dequantize nodes, as QDQ ONNX has them."""

    name = "lower-to-qdq"

    def run(self, graph: Graph, ctx: PassContext) -> int:
        changes = lower(graph.module).changes
        ctx.statistics["nodes lowered"] += changes
        return changes
