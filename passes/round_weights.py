"""round-weights: weights become integers, rounded so that what their products give errs least."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from compiler.diagnostics import QdqcError, suggestion
from compiler.ir.graph import Graph
from compiler.ir.types import Elem, Quant
from compiler.ops import MatMul
from compiler.pipeline.pass_ import PassContext
from compiler.quant.arithmetic import block_quant, spread, weight_quant
from compiler.quant.targets.known import target_named
from compiler.tuning.blas import single_threaded
from compiler.tuning.columns import Product, product_of
from compiler.tuning.data_pass import DataPass
from compiler.tuning.moments import Moments, moments_of
from compiler.tuning.rounding import (
    Grid,
    damped,
    rounded_in_order,
    rounded_to_nearest,
    settled,
    squared_error,
)

__all__ = ["RoundWeights"]

_METHODS = ("gptq", "nearest")
_SCHEMES = ("per-channel", "per-tensor")


class RoundWeights(DataPass):
    """Store weights of products as integers, rounded to keep what the products give on data.

    For a row w and the columns c that it meets, rounding it to q errs by ``(q - w) . c``. The
    bias takes the mean of that, ``b' = b + (w - q) E[c]``, and q makes the rest small: with H
    the covariance of c (of ``E[c c^T]`` where there is no bias), ``(q - w) H (q - w)^T``.
    ``method=gptq`` rounds column by column and makes up for each error in the columns behind,
    with ``damping`` of H's mean diagonal, then lets each number settle beside the others for
    ``sweeps``; a row that errs no less than rounded to nearest is. ``method=nearest`` leaves
    all to the bias. ``bits=4`` stores weights of MatMul as u4 in blocks of ``group_size`` rows,
    and other weights as i8. (Frantar et al., GPTQ, 2022; Nagel et al., Data-Free Quantization
    Through Weight Equalization and Bias Correction, 2019, for the bias.)
    """

    name = "round-weights"

    method: str = "gptq"
    bits: int = 8
    group_size: int = 32
    damping: float = 0.01
    sweeps: int = 2
    scheme: str = "per-channel"
    target: str = "ort-cpu"

    def run(self, graph: Graph, ctx: PassContext) -> int:
        self._check_options()
        data = self.data(graph, ctx)
        found = moments_of(
            graph.module,
            self._products(graph, ctx),
            data.samples,
            data.masking,
            second=self.method == "gptq",
        )
        changes = 0
        with single_threaded():
            for sharing, moments in found:
                for product in sharing:
                    if not moments.is_finite:
                        ctx.warn(f"%{product.x.name} is not finite on the data", product.node)
                        continue
                    self._round(product, moments, ctx)
                    changes += 1
        return changes + graph.module.drop_unused_constants()

    def _check_options(self) -> None:
        _known("method", self.method, _METHODS)
        _known("scheme", self.scheme, _SCHEMES)
        if self.bits not in (8, 4):
            raise QdqcError(f"weights have no form of {self.bits} bits", notes=["give 8 or 4"])
        if self.group_size < 16 or self.group_size & (self.group_size - 1):
            raise QdqcError(
                f"groups of {self.group_size} weights have no kernel",
                notes=["give a power of two from 16 on, such as 32"],
            )
        if not self.damping >= 0:
            raise QdqcError(f"a damping of {self.damping:g} is none", notes=["give 0.01 or so"])

    def _products(self, graph: Graph, ctx: PassContext) -> list[Product]:
        """The products with a float weight that the target may run in integers."""
        target = target_named(self.target)
        found: list[Product] = []
        for node in graph.nodes():
            traits = node.op.quant(*node.operand_types())
            product = product_of(node)
            reason = target.no_kernel(node, traits) if isinstance(product, Product) else product
            if node.mode in ("F32", "F16"):
                reason = f"its mode is {node.mode}"
            if isinstance(product, Product) and reason is None:
                found.append(product)
            elif traits.weight is not None:
                ctx.decline(self.name, node, reason or "")
        return found

    def _round(self, product: Product, moments: Moments, ctx: PassContext) -> None:
        quant, elem = self._quant(product)
        rows = product.rows(product.weight.data.array()).astype(np.float64)
        scale, zero = spread(quant, product.weight.data.array().ndim)
        step, zero = (
            product.rows(np.broadcast_to(a, product.weight.data.shape)) for a in (scale, zero)
        )
        grid = self._grid(elem, step, zero)
        whole = rounded_to_nearest(rows, grid)
        if self.method == "gptq":
            second = moments.second(centred=product.takes_bias)
            whole, better = self._settled(rows, grid, second, whole)
            ctx.statistics["rows that err less than rounded to nearest"] += better
        if product.takes_bias:
            lost = rows - whole * step
            product.add_to_bias(np.einsum("gok,gk->go", lost, moments.mean).reshape(-1))
        product.store_weight(product.as_weight(whole + zero).astype(elem.dtype), elem, quant)
        ctx.statistics[f"weights of {elem.bits} bits"] += 1

    def _quant(self, product: Product) -> tuple[Quant, Elem]:
        array, traits = product.weight.data.array(), product.traits
        blocks = len(array) % self.group_size == 0 and isinstance(product.node.op, MatMul)
        if self.bits == 4 and blocks:
            return block_quant(array, self.group_size, Elem.U4), Elem.U4
        axis = traits.axis if self.scheme == "per-channel" else None
        return weight_quant(array, axis, target_named(self.target).weight_limit), Elem.I8

    def _grid(self, elem: Elem, step: Any, zero: Any) -> Grid:
        limit = target_named(self.target).weight_limit
        if elem is Elem.U4:
            return Grid(step, -zero, elem.limits[1] - zero)
        return Grid(step, -limit, limit)

    def _settled(
        self, rows: Any, grid: Grid, second: Any, nearest: Any
    ) -> tuple[npt.NDArray[np.float64], int]:
        """Whole numbers whose rows err no more than the nearest ones; how many err less."""
        held, step = damped(second, self.damping), grid.step
        found = settled(rounded_in_order(rows, grid, held), rows, grid, held, self.sweeps)
        before, after = (squared_error(rows - w * step, second) for w in (nearest, found))
        better = after < before
        return np.where(better[:, :, None], found, nearest), int(better.sum())


def _known(option: str, given: str, known: Sequence[str]) -> None:
    if given not in known:
        raise QdqcError(
            f"unknown {option} '{given}'{suggestion(given, known)}",
            notes=[f"{option}s are {', '.join(known)}"],
        )
