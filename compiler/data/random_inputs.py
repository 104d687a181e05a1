"""Random samples for checks without data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np

from compiler.data.fit import Sample, input_specs
from compiler.ir.dims import Expr
from compiler.ir.graph import Graph
from compiler.ir.types import Array, Elem, TensorType

__all__ = ["random_samples"]

Extremes: TypeAlias = tuple[float, float]

_SYMBOL_SIZE = 2
"""What a symbol counts as: the smallest size that is no broadcast."""


def random_samples(
    graph: Graph, count: int, ranges: Mapping[str, Extremes] | None = None, seed: int = 0
) -> list[Sample]:
    """Samples that fit the graph's inputs; the same for the same seed.

    Where ``ranges`` (least and largest by name) names an input, integers are uniform over it,
    and floats normal: three standard deviations to either side of its middle, clipped to it,
    since uniform noise saturates nets that real data do not. Other float inputs are standard
    normal, other integers 0 or 1, so that they are valid as indices, masks and types alike.
    Symbols count as 2.
    """
    rng = np.random.default_rng(seed)
    known = ranges or {}
    types = [(spec.name, spec.type) for spec in input_specs(graph)]
    return [
        {name: _array(found, known.get(name), rng) for name, found in types} for _ in range(count)
    ]


def _array(found: TensorType, extremes: Extremes | None, rng: np.random.Generator) -> Array:
    shape = tuple(_size(d) for d in found.shape or ())
    if not found.elem.is_float:
        if found.elem is Elem.STRING:
            return np.full(shape, "", dtype=np.object_)
        low, high = (0, 1) if extremes is None else map(int, extremes)
        return rng.integers(low, high, shape, endpoint=True).astype(found.elem.dtype)
    if extremes is not None:
        low, high = extremes
        numbers = rng.normal((low + high) / 2, (high - low) / 6, shape)
        return numbers.clip(low, high).astype(found.elem.dtype)
    return rng.standard_normal(shape).astype(found.elem.dtype)


def _size(dim: int | Expr | None) -> int:
    if isinstance(dim, int):
        return dim
    if dim is None:
        return _SYMBOL_SIZE
    size = dim.substitute(dict.fromkeys(dim.symbols(), _SYMBOL_SIZE))
    return size if isinstance(size, int) else _SYMBOL_SIZE
