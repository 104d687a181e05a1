"""Random samples for checks without data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np

from qdqc.data.fit import Sample, input_specs
from qdqc.ir.dims import Expr
from qdqc.ir.graph import Graph
from qdqc.ir.types import Array, Elem, TensorType

__all__ = ["SYMBOL_SIZE", "random_samples"]

Extremes: TypeAlias = tuple[float, float]

SYMBOL_SIZE = 2
"""What a symbol counts as: the smallest size that does not broadcast."""


def random_samples(
    graph: Graph,
    count: int,
    ranges: Mapping[str, Extremes] | None = None,
    *,
    seed: int = 0,
    symbol_size: int = SYMBOL_SIZE,
) -> list[Sample]:
    """Samples that fit the graph's inputs; the same for the same seed.

    Where ``ranges`` (least and largest by name) names an input, integers are uniform over it,
    and floats normal: three standard deviations to either side of its middle, clipped to it,
    since uniform noise saturates nets that real data do not. Other float inputs are standard
    normal, other integers 0 or 1, so that they are valid as indices, masks and types alike.
    Symbols count as ``symbol_size``.
    """
    rng = np.random.default_rng(seed)
    known = ranges or {}
    types = [(spec.name, spec.type) for spec in input_specs(graph)]
    return [
        {n: _array(type_, known.get(n), symbol_size, rng) for n, type_ in types}
        for _ in range(count)
    ]


def _array(
    type_: TensorType, extremes: Extremes | None, symbol_size: int, rng: np.random.Generator
) -> Array:
    shape = tuple(_size(d, symbol_size) for d in type_.shape or ())
    if not type_.elem.is_float:
        if type_.elem is Elem.STRING:
            return np.full(shape, "", dtype=np.object_)
        low, high = (0, 1) if extremes is None else map(int, extremes)
        return rng.integers(low, high, shape, endpoint=True).astype(type_.elem.dtype)
    if extremes is not None:
        low, high = extremes
        numbers = rng.normal((low + high) / 2, (high - low) / 6, shape)
        return numbers.clip(low, high).astype(type_.elem.dtype)
    return rng.standard_normal(shape).astype(type_.elem.dtype)


def _size(dim: int | Expr | None, symbol_size: int) -> int:
    if isinstance(dim, int):
        return dim
    if dim is None:
        return symbol_size
    size = dim.substitute(dict.fromkeys(dim.symbols(), symbol_size))
    return size if isinstance(size, int) else symbol_size
