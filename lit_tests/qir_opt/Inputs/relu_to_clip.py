import math

from qdqc.ops import Clip, Relu
from qdqc.rewrite.pattern import PatternPass, rewrites


class ReluToClip(PatternPass):
    """Turn relu into clip, for targets that have only clip."""

    name = "relu-to-clip"
    max: float = math.inf

    @rewrites(Relu)
    def to_clip(self, node, rw):
        return rw.op(Clip(min=0.0, max=self.max), node.operands[0])
