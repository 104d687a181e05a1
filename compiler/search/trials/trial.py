"""The trials of one layer: its variants in integers, and what becomes of them in the outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from qdqc.diagnostics import QdqcError
from qdqc.ir.graph import Module
from qdqc.ir.types import Range
from qdqc.runtime.sessions.session import Runner
from qdqc.search.trials.cut import open_batch, piece_of
from qdqc.search.trials.head import Head, Setup, Variant, variant_name
from qdqc.search.trials.layers import Layer

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

    def run(
        self, samples: Sequence[Arrays], variants: Sequence[int], *, stacked: bool
    ) -> list[list[dict[str, npt.NDArray[Any]]]]:
        """The compared values by sample and by variant of these numbers, from the kept values.

        ``stacked`` runs the tail once, with all of them behind one another on the first axis.
        """
        given = [one for values in samples for one in self._given(values, variants)]
        outputs = self._joined(given) if stacked else [self._tail.run(one) for one in given]
        compared = [{n: one[n] for n in self._compared} for one in outputs]
        width = len(variants)
        return [compared[i : i + width] for i in range(0, len(compared), width)]

    def _given(self, values: Arrays, variants: Sequence[int]) -> list[Arrays]:
        """What the tail reads for each variant of a sample."""
        heads = self._head.run({n: values[n] for n in self._head.inputs})
        beside = {n: values[n] for n in self._beside}
        names = self._names.items()
        return [beside | {other: heads[variant_name(n, k)] for n, other in names} for k in variants]

    def _joined(self, given: Sequence[Arrays]) -> list[Arrays]:
        """The tail's outputs for several of its inputs, run as one."""
        joined = {n: np.concatenate([one[n] for one in given]) for n in self._tail.inputs}
        outputs = self._tail.run(joined)
        parts = {n: np.split(outputs[n], len(given)) for n in self._compared}
        return [{n: p[k] for n, p in parts.items()} for k in range(len(given))]

    def can_stack(self, samples: Sequence[Arrays]) -> bool:
        """Whether the tail keeps rows that lie behind one another apart, to the bit."""
        every = range(self.count)
        alone = self.run(samples, every, stacked=False)
        try:
            joined = self.run(samples, every, stacked=True)
        except (QdqcError, ValueError):
            return False
        return all(
            np.array_equal(a[n], b[n], equal_nan=True)
            for one, other in zip(alone, joined, strict=True)
            for a, b in zip(one, other, strict=True)
            for n in a
        )
