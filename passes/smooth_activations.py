"""smooth-activations: outliers of activations move into the weights that multiply them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qdqc.ir.core import Value
from qdqc.ir.data import Data
from qdqc.ir.graph import Graph
from qdqc.ops import Mul
from qdqc.pipeline.pass_ import PassContext
from qdqc.quant.targets.target import Target, target_named
from qdqc.tuning.blas import single_threaded
from qdqc.tuning.columns import Product, product_of
from qdqc.tuning.data_pass import DataPass
from qdqc.tuning.product_inputs import sharing
from qdqc.tuning.scaling import Scaling, apply, scaled_upstream
from qdqc.tuning.smoothing import Inputs, inputs_of, smoothing_of

__all__ = ["SmoothActivations"]


class SmoothActivations(DataPass):
    """Divide the channels that matrix products read, and multiply their weights by the same.

    ``x W = (x / s) (s W)`` with ``s_k = max|x_k|^a / max|W_k|^(1-a)`` for each channel k that
    products share (Xiao et al., SmoothQuant, 2022). The strength a of each group of products
    that read one value is that of ``strengths`` with the least squared error of their outputs
    on the data, both sides in 8 bits; a group whose error does not fall below ``worth`` times
    that without is left alone. The division goes into what makes the value: the gains of a
    normalization, a constant factor, the value projection of an attention. Where it can't, it
    is a Mul before the products, unless ``insert`` is false. The float function stays the same.
    """

    name = "smooth-activations"

    strengths: tuple[float, ...] = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
    worth: float = 0.95
    insert: bool = True
    target: str = "ort-cpu"

    def run(self, graph: Graph, ctx: PassContext) -> int:
        data, target = self.data(graph, ctx), target_named(self.target)
        products = self._products(graph, target, ctx)
        if not products:
            return 0
        measured = inputs_of(graph.module, products, data.samples, data.masking)
        changes = 0
        with single_threaded():
            for group, inputs in measured:
                changes += self._smooth(group, inputs, target, ctx)
        return changes + (graph.module.drop_unused_constants() if changes else 0)

    def _products(self, graph: Graph, target: Target, ctx: PassContext) -> list[Product]:
        """Dense products that the target runs in integers, and whose input can be divided."""
        dense = [p for n in graph.nodes() if isinstance(p := product_of(n), Product) and p.is_dense]
        products: list[Product] = []
        for group in sharing(dense).values():
            reason = self._refusal(group, target)
            for product in group:
                if reason is None:
                    products.append(product)
                else:
                    ctx.decline(self.name, product.node, reason)
        return products

    def _refusal(self, group: list[Product], target: Target) -> str | None:
        """Why what these products read can't be divided; None where it can."""
        for product in group:
            if product.node.mode in ("F32", "F16"):
                return f"the mode of %{product.node.name} is {product.node.mode}"
            if (lack := target.no_kernel(product.node, product.traits)) is not None:
                return lack
        scaling = _divided(group, np.ones(1))
        if isinstance(scaling, str) and not (self.insert and _is_float(group[0].x, target)):
            return scaling
        return None

    def _smooth(
        self, group: list[Product], inputs: Inputs, target: Target, ctx: PassContext
    ) -> int:
        weights = [p.rows(p.weight.data.array())[0] for p in group]
        plain, choices = smoothing_of(weights, inputs, self.strengths, target.weight_limit)
        best = min(choices, key=lambda c: c.error)
        if not best.error < self.worth * plain:
            for product in group:
                ctx.decline(self.name, product.node, f"no strength errs less on {product.x}")
            return 0
        scaling = _divided(group, best.factors)
        if isinstance(scaling, str):
            _insert(group, best.factors)
            ctx.statistics["Mul put in"] += 1
        else:
            apply(scaling)
        for product in group:
            product.scale_inputs(best.factors)
        ctx.statistics["groups smoothed"] += 1
        ctx.statistics[f"strength {best.strength:g}"] += 1
        return 1


def _divided(group: list[Product], factors: npt.NDArray[np.float64]) -> Scaling | str:
    """How the value that all of them read, and nobody else, is divided by channel."""
    value = group[0].x
    shape = value.tensor.shape
    channels = shape[-1] if shape else None
    if shape is None or not isinstance(channels, int):
        return f"the channels of {value} are not known"
    by_channel = np.broadcast_to(1 / factors, (channels,))
    lead = (1,) * (len(shape) - 1)
    return scaled_upstream(value, by_channel.reshape(*lead, -1), [p.node for p in group])


def _is_float(value: Value, target: Target) -> bool:
    """Whether the value comes in float: between integers a Mul would cost casts."""
    node = value.producer
    return node is None or target.no_kernel(node, node.traits) is not None


def _insert(group: list[Product], factors: npt.NDArray[np.float64]) -> None:
    """A Mul between the value and the products that read it."""
    value, first = group[0].x, group[0].node
    module, graph = value.module, first.graph
    inverse = Data.of((1 / factors).astype(np.float32))
    constant = module.add_constant(module.fresh_name(f"{value.name}_factors"), inverse)
    place = value.producer.next if value.producer is not None else next(graph.nodes())
    name = module.fresh_name(f"{value.name}_smooth")
    made = graph.insert(Mul(), [value, constant], None, [name], loc=first.loc, before=place)
    for product in group:
        product.node.set_operand(0, made.result)
