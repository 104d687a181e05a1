"""The trials of one layer: its variants in integers, and what becomes of them in the outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from compiler.diagnostics import QdqcError
from compiler.ir.graph import Module
from compiler.ir.types import Range
from compiler.runtime.session import Runner
from compiler.search.cut import open_batch, piece_of
from compiler.search.head import Head, Setup, Variant, variant_name
from compiler.search.layers import Layer

__all__ = ["Trial"]

Arrays: TypeAlias = Mapping[str, npt.NDArray[Any]]


class Trial:
    """Runs variants of a layer from kept values to the compared ones.

    ``head`` gives the values of each variant in float numbers. Raises QdqcError where
    onnxruntime refuses a piece.
    """

    def __init__(self, setup: Setup, layer: Layer, head: Module, count: int) -> None:
        self.layer = layer
        self.count = count
        piece = setup.cuts.tail(layer)
        tail = piece_of(setup.layers.planned, piece)
        self._names = {v.name: piece.instead.get(v.name, v.name) for v in layer.values}
        open_batch(tail, self._names.values())
        shared: Any = {"threads": 1, "weights": setup.weights, "opset": setup.opset}
        self._head, self._tail = Runner(head, **shared), Runner(tail, **shared)
        self.tail_nodes = piece.nodes
        self._compared = piece.outputs
        self._beside = [n for n in self._tail.inputs if n not in self._names.values()]

    @classmethod
    def of_variants(
        cls,
        setup: Setup,
        layer: Layer,
        variants: Sequence[Variant],
        ranges: Mapping[str, Range],
    ) -> Trial:
        """The layer as deployment would have it, once for each variant.

        ``ranges`` are those of the values that the layer reads, by name.
        """
        head = Head(setup, layer, ranges)
        return cls(setup, layer, head.with_variants(variants), len(variants))

    @classmethod
    def of_parts(
        cls, setup: Setup, layer: Layer, quants: Variant, ranges: Mapping[str, Range]
    ) -> tuple[list[str], Trial | None]:
        """The layer with its ``values`` rounded alone, and its ``weights``; names come first."""
        kinds, module = Head(setup, layer, ranges).with_parts(quants)
        return kinds, cls(setup, layer, module, len(kinds)) if kinds else None

    def run(self, values: Arrays, *, stacked: bool) -> list[dict[str, npt.NDArray[Any]]]:
        """The compared values of each variant, for the kept values of one sample.

        ``stacked`` runs the tail once, with the variants behind one another on the first axis.
        """
        found = self._head.run({n: values[n] for n in self._head.inputs})
        made = [
            {other: found[variant_name(n, k)] for n, other in self._names.items()}
            for k in range(self.count)
        ]
        beside = {n: values[n] for n in self._beside}
        if not stacked or self.count == 1:
            every = [self._tail.run({**beside, **one}) for one in made]
            return [{n: outputs[n] for n in self._compared} for outputs in every]
        joined = {n: np.concatenate([one[n] for one in made]) for n in self._names.values()}
        joined |= {n: np.concatenate([a] * self.count) for n, a in beside.items()}
        outputs = self._tail.run(joined)
        parts = {n: np.split(outputs[n], self.count) for n in self._compared}
        return [{n: p[k] for n, p in parts.items()} for k in range(self.count)]

    def can_stack(self, values: Arrays) -> bool:
        """Whether the tail keeps variants that lie behind one another apart, to the bit."""
        alone = self.run(values, stacked=False)
        try:
            joined = self.run(values, stacked=True)
        except (QdqcError, ValueError):
            return False
        return all(
            np.array_equal(a[n], b[n], equal_nan=True)
            for a, b in zip(alone, joined, strict=True)
            for n in a
        )
