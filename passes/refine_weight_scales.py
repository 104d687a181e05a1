"""refine-weight-scales: weights are clipped where that costs less than the steps it saves."""

from __future__ import annotations

import numpy as np

from qdqc.ir.graph import Graph
from qdqc.pipeline.pass_ import PassContext
from qdqc.quant.targets.target import target_named
from qdqc.tuning.blas import single_threaded
from qdqc.tuning.columns import Product
from qdqc.tuning.data_pass import DataPass
from qdqc.tuning.integer import SCHEMES, check_choice, integer_products
from qdqc.tuning.moments import Moments, moments_of
from qdqc.tuning.rounding import best_reach, row_slabs

__all__ = ["RefineWeightScales"]


class RefineWeightScales(DataPass):
    """Clip weights to the reach at which what their products give errs least in 8 bits.

    A scale that serves the largest weight of many is coarse for the others. With H the
    covariance of what a product reads (``E[c c^T]`` where it takes no bias), a row w that is
    clipped to ``r max|w|`` and rounded to q errs by ``(q - w) H (q - w)^T``; r is the one of
    0.3, 0.35 .. 1 with the least error, for each row, or with ``scheme=per-tensor`` for the
    weight as a whole. The bias takes the mean of what is clipped. The weights stay float: what
    quantizes them finds their largest number. Weights with one scale gain by it; a scale a
    channel is near the best already. (The search is that of Nagel et al., A White Paper on
    Neural Network Quantization, 2021, section 3.1, with the error of the output.)
    """

    name = "refine-weight-scales"

    scheme: str = "per-channel"
    target: str = "ort-cpu"

    def run(self, graph: Graph, ctx: PassContext) -> int:
        check_choice("scheme", self.scheme, SCHEMES)
        data = self.data(graph, ctx)
        products = integer_products(graph, self.target, self.name, ctx)
        changes = 0
        with single_threaded():
            for sharing, moments in moments_of(graph.module, products, data.samples, data.masking):
                for product in sharing:
                    if not moments.is_finite:
                        ctx.warn(f"%{product.x.name} is not finite on the data", product.node)
                        continue
                    changes += self._clip(product, moments, ctx)
        return changes + (graph.module.drop_unused_constants() if changes else 0)

    def _clip(self, product: Product, moments: Moments, ctx: PassContext) -> int:
        rows = product.rows(product.weight.data.array())
        slabs = list(row_slabs(rows.shape))
        largest = np.zeros((*rows.shape[:2], 1))
        for part in slabs:
            largest[:, part] = np.abs(rows[:, part]).max(axis=2, keepdims=True, initial=0.0)
        if self.scheme == "per-tensor":
            largest = np.full_like(largest, largest.max(initial=0.0))
        second = moments.second(centred=product.takes_bias)
        limit = target_named(self.target).weight_limit
        shared = self.scheme == "per-tensor"
        bound = best_reach(rows, largest, second, limit, shared=shared) * largest
        bound = bound.astype(np.float32)
        clipped = np.clip(rows, -bound, bound)
        if np.array_equal(clipped, rows):
            ctx.decline(self.name, product.node, "no narrower scale errs less")
            return 0
        if product.takes_bias:
            lost = np.zeros(rows.shape[:2])
            for part in slabs:
                clipped_off = rows[:, part].astype(np.float64) - clipped[:, part]
                lost[:, part] = np.einsum("gok,gk->go", clipped_off, moments.mean)
            product.add_to_bias(lost.reshape(-1))
        module = product.node.graph.module
        product.store_rows(clipped, module.fresh_name(f"{product.weight.name}_clipped"))
        ctx.statistics["weights clipped"] += 1
        ctx.statistics["numbers clipped"] += int((clipped != rows).sum())
        return 1
