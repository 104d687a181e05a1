"""Taps shared out to several runs of the model, so that each run stays within a memory limit."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

from qdqc.calibration.observed import Plan
from qdqc.calibration.statistics import SIDE, Detail
from qdqc.data.fit import Sample
from qdqc.diagnostics import QdqcError
from qdqc.ir.dims import Expr, symbol
from qdqc.ir.graph import Graph

__all__ = ["Demand", "largest", "parts_within", "sizes_of", "stated_shapes", "stated_sizes"]

_VALUE = 2 * 4
"""Bytes of an element of a tap: as onnxruntime holds it, and as numpy does."""

_HISTOGRAM = 2 * SIDE * 8
_STATISTICS = {Detail.EXTREMES: 4096, Detail.HISTOGRAM: _HISTOGRAM, Detail.SAMPLES: 2 * _HISTOGRAM}
"""Bytes of the statistics of a batch for one tap."""

_SLACK, _MARGIN = 0.05, 16 << 20
"""What the limit is above the estimate: a share of it, and bytes."""


class Demand:
    """What runs take in bytes, by ``base``, an idle process, and ``run``, one with one tap.

    ``own_processes`` is whether those who work side by side are processes, beside this one.
    """

    def __init__(self, base: int, run: int, detail: Detail, *, own_processes: bool) -> None:
        self._base = base
        self._model = max(0, run - base)
        self._statistics = _STATISTICS[detail]
        self._own = own_processes

    def total(self, sizes: Iterable[int], holders: int) -> int:
        """Bytes when so many work side by side on taps of these numbers of elements."""
        each = self._model + (self._base if self._own else 0)
        buffers = [holders * _VALUE * n + (holders + 4) * self._statistics for n in sizes]
        return math.ceil((self._base + holders * each + sum(buffers)) / (1 - _SLACK)) + _MARGIN


def parts_within(
    limit: int, plan: Plan, sizes: Mapping[str, int], demand: Demand, holders: int
) -> list[Plan]:
    """The plan in parts, in graph order, each of which stays within the limit.

    Raises QdqcError where one tap is too much, and says what the largest of them needs.
    """
    needed = max(demand.total([sizes[n]], holders) for n in plan.taps)
    if needed > limit:
        raise QdqcError(
            f"`memory_limit` {_megabytes(limit)} is too small: with the largest value alone the "
            f"model takes {_megabytes(needed)}",
            notes=[f"give {_megabytes(needed)} or more, or fewer `workers`"],
        )
    groups: list[list[str]] = [[]]
    for name in plan.taps:
        grown = [*groups[-1], name]
        if demand.total([sizes[n] for n in grown], holders) <= limit:
            groups[-1] = grown
        else:
            groups.append([name])
    firsts = itertools.chain([plan.integers], itertools.repeat(()))
    return [plan.part(names, integers) for names, integers in zip(groups, firsts, strict=False)]


def largest(samples: Iterable[Sample]) -> Sample:
    """The sample with the most elements; an empty one where there are none."""
    return max(samples, key=lambda s: sum(a.size for a in s.values()), default={})


def sizes_of(graph: Graph, names: Sequence[str], sample: Sample) -> dict[str, int]:
    """Elements of values, with the sizes that a sample gives to the symbols.

    A value whose size the types do not state counts as the largest of the others.
    """
    sizes = stated_sizes(graph, names, sample)
    most = max((size for size in sizes.values() if size is not None), default=0)
    return {n: most if size is None else size for n, size in sizes.items()}


def stated_sizes(graph: Graph, names: Sequence[str], sample: Sample) -> dict[str, int | None]:
    """As ``sizes_of``; None for a value whose size the types do not state."""
    shapes = stated_shapes(graph, names, sample)
    return {n: math.prod(shapes[n]) if n in shapes else None for n in names}


def stated_shapes(graph: Graph, names: Sequence[str], sample: Sample) -> dict[str, tuple[int, ...]]:
    """The shapes of values, by name, with the sizes that a sample gives to the symbols.

    Those that the types do not state are left out.
    """
    symbols: dict[str, int | Expr] = {}
    for value in graph.inputs:
        array = sample.get(value.name)
        for dim, size in zip(
            value.shape or (), array.shape if array is not None else (), strict=False
        ):
            if isinstance(dim, Expr):
                symbols.update((s, size) for s in dim.symbols() if dim == symbol(s))
    shapes = ((n, _shape(graph, n, symbols)) for n in names)
    return {n: shape for n, shape in shapes if shape is not None}


def _shape(graph: Graph, name: str, symbols: Mapping[str, int | Expr]) -> tuple[int, ...] | None:
    value = graph.module.value(name)
    shape = None if value is None else value.shape
    sizes: list[int] = []
    for dim in (None,) if shape is None else shape:
        size = dim.substitute(symbols) if isinstance(dim, Expr) else dim
        if not isinstance(size, int):
            return None
        sizes.append(size)
    return tuple(sizes)


def _megabytes(size: int) -> str:
    return f"{math.ceil(size / 1e6)}MB"
