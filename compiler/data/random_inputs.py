"""Random samples for checks without data."""

from __future__ import annotations

import numpy as np

from compiler.data.fit import Sample, input_specs
from compiler.ir.dims import Expr
from compiler.ir.graph import Graph
from compiler.ir.types import Array, Elem, TensorType

__all__ = ["random_samples"]

_SYMBOL_SIZE = 2
"""What a symbol counts as: the smallest size that is no broadcast."""


def random_samples(graph: Graph, count: int, seed: int = 0) -> list[Sample]:
    """Samples that fit the graph's inputs; the same for the same seed.

    Float inputs are uniform over their calibrated range, else normal; integers are 0 or 1, so
    that they are valid as indices, masks and types alike. Symbols count as 2.
    """
    rng = np.random.default_rng(seed)
    types = [(spec.name, spec.type) for spec in input_specs(graph)]
    return [{name: _array(found, rng) for name, found in types} for _ in range(count)]


def _array(found: TensorType, rng: np.random.Generator) -> Array:
    shape = tuple(_size(d) for d in found.shape or ())
    if not found.elem.is_float:
        if found.elem is Elem.STRING:
            return np.full(shape, "", dtype=np.object_)
        return rng.integers(0, 2, shape).astype(found.elem.dtype)
    if found.range is not None:
        return rng.uniform(found.range.min, found.range.max, shape).astype(found.elem.dtype)
    return rng.standard_normal(shape).astype(found.elem.dtype)


def _size(dim: int | Expr | None) -> int:
    if isinstance(dim, int):
        return dim
    if dim is None:
        return _SYMBOL_SIZE
    size = dim.substitute(dict.fromkeys(dim.symbols(), _SYMBOL_SIZE))
    return size if isinstance(size, int) else _SYMBOL_SIZE
