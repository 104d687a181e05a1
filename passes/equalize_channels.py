"""equalize-channels: channels between two products are scaled so that both weights spread less."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from qdqc.ir.core import Node
from qdqc.ir.graph import Graph
from qdqc.pipeline.pass_ import Pass, PassContext
from qdqc.tuning.columns import Product, product_of
from qdqc.tuning.scaling import apply, scaled_upstream

__all__ = ["EqualizeChannels"]

_SETTLED = 1e-3
"""Factors this near to one change nothing that counts."""


class EqualizeChannels(Pass):
    """Scale channels between two products so that both weights hold them in equal ranges.

    A factor f_c > 0 goes through Relu, PRelu and pools: ``W2 relu(W1 x + b) =
    (W2 / f) relu(f W1 x + f b)``. With r1 the largest weight of output channel c of the first
    product and r2 that of input channel c of the second, ``f = sqrt(r2 / r1)`` makes both
    sqrt(r1 r2). Chains of products settle in ``sweeps`` over the graph. A channel that is zero
    on either side is left alone. (Nagel et al., Data-Free Quantization Through Weight
    Equalization and Bias Correction, 2019, section 4.1.) Weights with one scale gain by it, and
    values whose channels lie far apart. A bound such as that of Relu6 does not scale, and a
    residual has further readers: these pairs are declined.
    """

    name = "equalize-channels"

    sweeps: int = 20

    def run(self, graph: Graph, ctx: PassContext) -> int:
        scaled: set[Node[Any]] = set()
        for _ in range(self.sweeps):
            moved = [n for n in list(graph.nodes()) if self._equalize(n, ctx)]
            if not moved:
                break
            scaled |= set(moved)
            graph.module.drop_unused_constants()
        ctx.statistics["pairs equalized"] += len(scaled)
        return len(scaled)

    def _equalize(self, node: Node[Any], ctx: PassContext) -> bool:
        """Scale what a product reads; whether that changed much."""
        second = product_of(node)
        if isinstance(second, str):
            return False
        channels = _channels(second)
        if channels is None:
            return False
        ones = np.ones(channels)
        scaling = scaled_upstream(second.x, _spread(second, ones), [node])
        if isinstance(scaling, str):
            ctx.decline(self.name, node, scaling)
            return False
        made = scaling.edits[0].node
        first = product_of(made)
        if isinstance(first, str):
            ctx.decline(self.name, node, f"its input comes from {made.op.name}")
            return False
        groups, outputs, _ = first.rows_shape
        reach = np.abs(first.rows(first.weight.data.array())).max(axis=2).reshape(groups * outputs)
        factors = _factors(reach, second.input_reach(channels))
        if np.abs(np.log(factors)).max(initial=0.0) < _SETTLED:
            return False
        scaled = scaled_upstream(second.x, _spread(second, factors), [node])
        assert not isinstance(scaled, str)
        apply(scaled)
        second.scale_inputs(1 / factors)
        return True


def _factors(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    alive = (first > 0) & (second > 0)
    ratio = np.where(alive, second, 1) / np.where(alive, first, 1).astype(np.float64)
    return np.sqrt(ratio)


def _channels(product: Product) -> int | None:
    """How many channels the product reads, where that is known."""
    shape = product.x.tensor.shape
    size = shape[product.channel_axis] if shape else None
    return size if isinstance(size, int) else None


def _spread(product: Product, factors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Factors by channel of what the product reads, of its rank."""
    shape = [1] * (product.x.tensor.rank or 1)
    shape[product.channel_axis] = -1
    return factors.reshape(shape)
