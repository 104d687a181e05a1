"""Padding of text inputs: positions that a mask among the inputs leaves out of the statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from qdqc.data.fit import Sample
from qdqc.diagnostics import QdqcError, suggestion
from qdqc.ir.dims import Dim, product
from qdqc.ir.graph import Graph
from qdqc.ir.types import Array, Elem

__all__ = ["Masking", "masking_by"]

_FLAT = 0
"""Stands for the place of the positions where batch and sequence are one leading axis."""


@dataclass(frozen=True)
class Masking:
    """The mask's name, and for each value that has the mask's positions the axis they are on."""

    mask: str
    axes: Mapping[str, int]

    def kept(self, name: str, array: Array, sample: Sample) -> Array:
        """The elements at positions where the mask is not 0: [positions, ...].

        A value without the mask's positions, or with other sizes than the mask, is kept whole.
        """
        axis = self.axes.get(name)
        if axis is None:
            return array
        mask = np.asarray(sample[self.mask]) != 0
        if axis == _FLAT:
            flat = mask.reshape(-1)
            return array[flat] if array.shape[:1] == flat.shape else array
        if array.ndim <= axis or (array.shape[0], array.shape[axis]) != mask.shape:
            return array
        return np.moveaxis(array, axis, 1)[mask]


def masking_by(graph: Graph, name: str) -> Masking:
    """How the input ``name``, a mask of shape [batch, positions], cuts the values of a graph.

    Positions are found by their dimension, by symbol or by size: the first axis behind the
    batch that is as long as the mask; of attention scores [batch, heads, queries, keys] these
    are the queries. Raises QdqcError for an input that is not such a mask.
    """
    inputs = {v.name: v for v in graph.inputs}
    if name not in inputs:
        raise QdqcError(
            f"the model has no input '{name}' to mask by{suggestion(name, inputs)}",
            notes=[f"inputs are {', '.join(inputs)}"],
        )
    shape = inputs[name].shape
    if shape is None or len(shape) != 2:
        raise QdqcError(f"the input '{name}' is not a mask: its shape is not [batch, positions]")
    batch, positions = shape
    values = (*graph.inputs, *(r for n in graph.nodes() for r in n.present_results))
    axes: dict[str, int] = {}
    for value in values:
        if value.elem is Elem.F32:
            axis = _axis(value.shape, batch, positions)
            if axis is not None:
                axes[value.name] = axis
    return Masking(name, axes)


def _axis(shape: tuple[Dim, ...] | None, batch: Dim, positions: Dim) -> int | None:
    """The axis of the positions; None where a value has none."""
    if not shape or batch is None or positions is None:
        return None
    if shape[0] == batch:
        return next((i for i, d in enumerate(shape) if i and d == positions), None)
    return _FLAT if shape[0] == product((batch, positions)) else None
