"""Random samples for checks without data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from qdqc.data.fit import Sample
from qdqc.data.input_sizes import Sizes, named_type, size_of
from qdqc.ir.graph import Graph
from qdqc.ir.types import Array, Elem, OptionalType, SequenceType, TensorType, Type
from qdqc.ops.opaque import Opaque

__all__ = ["random_samples"]

Extremes: TypeAlias = tuple[float, float]

_PARTS = 2
"""Tensors in a sequence."""

_COUNTING = ("GroupQueryAttention",)
"""Ops that take the sum of a mask for a length, and read elsewhere where it is too short."""


def random_samples(
    graph: Graph,
    count: int,
    ranges: Mapping[str, Extremes] | None = None,
    *,
    seed: int = 0,
    sizes: Sizes | None = None,
) -> list[Sample]:
    """Samples that fit the graph's inputs; the same for the same seed.

    Where ``ranges`` (least and largest by name) names an input, integers are uniform over it,
    and floats normal: three standard deviations to either side of its middle, clipped to it,
    since uniform noise saturates nets that real data do not. Other float inputs are standard
    normal, other integers 0 or 1, so that they are valid as indices, masks and types alike; a
    mask lets the first element through, for nothing is left of a row without any. ``sizes`` says
    what symbols are. A sequence has two tensors, an optional holds one.
    """
    rng = np.random.default_rng(seed)
    known = ranges or {}
    types = [(value.name, named_type(value.name, value.type)) for value in graph.inputs]
    samples = [
        {n: _value(type_, known.get(n), sizes or {}, rng) for n, type_ in types}
        for _ in range(count)
    ]
    counted = any(isinstance(n.op, Opaque) and n.op.type in _COUNTING for n in graph.nodes())
    for name, mask in ((n, a) for s in samples for n, a in s.items() if "mask" in n.lower()):
        if name not in known and isinstance(mask, np.ndarray) and mask.ndim:
            _let_through(mask, whole=counted)
    return samples


def _let_through(mask: Array, *, whole: bool) -> None:
    if mask.dtype.kind in "biu":
        mask[... if whole else (..., slice(0, 1))] = 1


def _value(type_: Type, extremes: Extremes | None, sizes: Sizes, rng: np.random.Generator) -> Any:
    if isinstance(type_, SequenceType):
        return [_value(type_.item, extremes, sizes, rng) for _ in range(_PARTS)]
    if isinstance(type_, OptionalType):
        return _value(type_.item, extremes, sizes, rng)
    return _array(type_, extremes, sizes, rng)


def _array(
    type_: TensorType, extremes: Extremes | None, sizes: Sizes, rng: np.random.Generator
) -> Array:
    shape = tuple(size_of(d, sizes) for d in type_.shape or ())
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
