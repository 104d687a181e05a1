"""verify-target: a typed module against the rules of its target."""

from __future__ import annotations

from qdqc.diagnostics import QdqcError
from qdqc.ir.graph import Graph
from qdqc.pipeline.pass_ import Pass, PassContext
from qdqc.quant.targets.rules import broken_rules
from qdqc.quant.targets.target import target_named

__all__ = ["VerifyTarget"]


class VerifyTarget(Pass):
    """Hold every integer node to the rules of the target; an error names the broken rule.

    For typed modules, between ``quantize`` and ``lower-to-qdq``. Without ``target`` it is the
    one that the module was quantized for.
    """

    name = "verify-target"

    target: str = ""

    def run(self, graph: Graph, ctx: PassContext) -> int:
        name = self.target or graph.module.header.get("target")
        if not isinstance(name, str):
            raise QdqcError(
                "the module names no target",
                notes=["quantize it first, or give verify-target{target=ort-cpu}"],
            )
        broken = next(broken_rules(graph, target_named(name)), None)
        if broken is not None:
            raise ctx.error(f"{name} wants {broken.rule}: {broken.message}", broken.node)
        return 0
