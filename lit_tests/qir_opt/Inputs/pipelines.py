from qdqc.ops import Relu, Sigmoid, Tanh
from qdqc.pipeline.pass_ import Pass
from qdqc.rewrite.pattern import PatternPass, rewrites

PIPELINES = {"both": "to-sigmoid,@wide", "wide": 'warns{text="from a pipeline"}'}


class ToSigmoid(PatternPass):
    """Turn relu into sigmoid, but never the one that reads an input."""

    name = "to-sigmoid"

    @rewrites(Relu)
    def swap(self, node, rw):
        if node.operands[0].is_input:
            return rw.no("reads an input", node.operands[0])
        return rw.op(Sigmoid(), node.operands[0])

    @rewrites(Tanh)
    def never(self, node, rw):
        return rw.no("tanh is left alone")


class Warns(Pass):
    """Warn of each node, or refuse it."""

    name = "warns"
    text: str = "odd"
    limit: int | None = None
    refuse: bool = False

    def run(self, graph, ctx):
        for node in list(graph.nodes())[: self.limit]:
            if self.refuse:
                raise ctx.error(self.text, node, "leave it out")
            ctx.warn(self.text, node)
        return 0
