"""round-weights: weights become integers, rounded so that what their products give errs least."""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from qdqc.calibration.in_order import in_threads
from qdqc.diagnostics import QdqcError
from qdqc.ir.graph import Graph
from qdqc.ir.types import Array, Elem, Quant
from qdqc.ops import MatMul
from qdqc.pipeline.pass_ import PassContext
from qdqc.quant.arithmetic import block_quant, spread, weight_quant
from qdqc.quant.targets.target import target_named
from qdqc.tuning.blas import single_threaded
from qdqc.tuning.columns import Product
from qdqc.tuning.data_pass import DataPass
from qdqc.tuning.integer import SCHEMES, check_choice, integer_products
from qdqc.tuning.moments import Moments, moments_of
from qdqc.tuning.rounding import (
    Elimination,
    Grid,
    damped,
    elimination,
    rounded_in_order,
    rounded_to_nearest,
    row_slabs,
    settled,
    squared_error,
)

__all__ = ["RoundWeights"]

_METHODS = ("gptq", "nearest")
_THREADS = 2


@dataclass(frozen=True)
class Rounding:
    """What a weight becomes: ``stored`` integers, and the ``shift`` that its bias takes, [O].

    So many rows are ``better`` than rounded to nearest.
    """

    stored: Array
    elem: Elem
    quant: Quant
    shift: npt.NDArray[np.float64]
    better: int


class RoundWeights(DataPass):
    """Store weights of products as integers, rounded to keep what the products give on data.

    For a row w and the columns c that it meets, rounding it to q errs by ``(q - w) . c``. The
    bias takes the mean of that, ``b' = b + (w - q) E[c]``, and q makes the rest small: with H
    the covariance of c (of ``E[c c^T]`` where there is no bias), ``(q - w) H (q - w)^T``. The
    diagonal of H is raised by ``damping`` of its mean first: the more, the less rounding trusts
    what the data say of how numbers depend on each other. ``method=gptq`` rounds column
    by column and makes up for each error in the columns behind, then lets each number settle
    beside the others for ``sweeps``; a row that errs no less than rounded to nearest is.
    ``method=nearest`` leaves all to the bias. ``bits=4`` stores weights of MatMul as u4 in
    blocks of ``group_size`` rows, and other weights as i8. (Frantar et al., GPTQ, 2022; Nagel
    et al., Data-Free Quantization Through Weight Equalization and Bias Correction, 2019, for
    the bias.)
    """

    name = "round-weights"

    method: str = "gptq"
    bits: int = 8
    group_size: int = 32
    damping: float = 0.2
    sweeps: int = 2
    scheme: str = "per-channel"
    target: str = "ort-cpu"

    def run(self, graph: Graph, ctx: PassContext) -> int:
        self._check_options()
        data = self.data(graph, ctx)
        moments = moments_of(
            graph.module,
            integer_products(graph, self.target, self.name, ctx),
            data.samples,
            data.masking,
            second=self.method == "gptq",
        )
        changes = 0
        with single_threaded():
            work = in_threads(self._rounded, moments, _THREADS, threading.Event())
            for product, rounding in itertools.chain.from_iterable(work):
                if rounding is None:
                    ctx.warn(f"%{product.x.name} is not finite on the data", product.node)
                    continue
                self._store(product, rounding, ctx)
                changes += 1
        return changes + graph.module.drop_unused_constants()

    def _check_options(self) -> None:
        check_choice("method", self.method, _METHODS)
        check_choice("scheme", self.scheme, SCHEMES)
        if self.bits not in (8, 4):
            raise QdqcError(f"weights have no form of {self.bits} bits", notes=["give 8 or 4"])
        if self.group_size < 16 or self.group_size & (self.group_size - 1):
            raise QdqcError(
                f"groups of {self.group_size} weights have no kernel",
                notes=["give a power of two from 16 on, such as 32"],
            )
        if not self.damping >= 0:
            raise QdqcError(f"a damping of {self.damping:g} is none", notes=["give 0.01 or so"])

    def _rounded(
        self, group: tuple[list[Product], Moments]
    ) -> list[tuple[Product, Rounding | None]]:
        """How each of the products that read the same is rounded; None where that is not finite."""
        products, moments = group
        if not moments.is_finite:
            return [(product, None) for product in products]
        return [(product, self._round(product, moments)) for product in products]

    def _round(self, product: Product, moments: Moments) -> Rounding:
        quant, elem = self._quant(product)
        weight = product.weight.data.array()
        rows = product.rows(weight)
        step, zero = (
            product.rows(np.broadcast_to(a, weight.shape)) for a in spread(quant, weight.ndim)
        )
        stored, shift = np.empty(rows.shape, elem.dtype), np.zeros(rows.shape[:2])
        rounding = self._rounding(product, moments)
        better = 0
        for part in row_slabs(rows.shape):
            exact, at = rows[:, part].astype(np.float64), zero[:, part].astype(np.float64)
            grid = self._grid(elem, step[:, part].astype(np.float64), at)
            whole = rounded_to_nearest(exact, grid)
            if rounding is not None:
                whole, fewer = rounding.settled(exact, grid, whole)
                better += fewer
            stored[:, part] = (whole + at).astype(elem.dtype)
            lost = exact - whole * grid.step
            shift[:, part] = np.einsum("gok,gk->go", lost, moments.mean)
        return Rounding(product.as_weight(stored), elem, quant, shift.reshape(-1), better)

    def _rounding(self, product: Product, moments: Moments) -> _Together | None:
        """What rounds weights beside each other; None where each is rounded by itself."""
        if self.method != "gptq":
            return None
        second = damped(moments.second(centred=product.takes_bias), self.damping)
        return _Together(moments, second, elimination(second), self.sweeps)

    def _store(self, product: Product, rounding: Rounding, ctx: PassContext) -> None:
        if self.method == "gptq":
            ctx.statistics["rows that err less than rounded to nearest"] += rounding.better
        if product.takes_bias:
            product.add_to_bias(rounding.shift)
        product.store_weight(rounding.stored, rounding.elem, rounding.quant)
        ctx.statistics[f"weights of {rounding.elem.bits} bits"] += 1

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


@dataclass(frozen=True)
class _Together:
    """Rounds rows by the damped second moments of what they meet."""

    moments: Moments
    second: npt.NDArray[np.float64]
    by: Elimination
    sweeps: int

    def settled(self, rows: Any, grid: Grid, nearest: Any) -> tuple[npt.NDArray[np.float64], int]:
        """Whole numbers whose rows err no more than the nearest ones; how many err less."""
        split, hessian = self.moments.split, self.second
        exact, near = split(rows), split(nearest)
        step = split(np.broadcast_to(grid.step, rows.shape), 1.0)
        low, high = (split(np.broadcast_to(a, rows.shape)) for a in (grid.low, grid.high))
        inside = Grid(step, low, high)
        whole = rounded_in_order(exact, inside, hessian, self.by)
        whole = settled(whole, exact, inside, hessian, self.sweeps)
        before, after = (squared_error(exact - w * step, hessian) for w in (near, whole))
        better = after < before
        chosen = np.where(better[:, :, None], whole, near)
        return self.moments.joined(chosen), int(self.moments.rows_of(better).sum())
