"""Constants that a file holds once, whoever reads them and in whatever form."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from qdqc.ir.core import Constant
from qdqc.ir.graph import Module

__all__ = ["Shared", "shared_constants"]

_LEAST = 1 << 10
"""Bytes from which a constant is looked at: below them a node costs as much."""


@dataclass
class Shared:
    """Names of constants that are left out: ``same`` as another one, or one ``turned``."""

    same: dict[str, str] = field(default_factory=dict)
    turned: dict[str, str] = field(default_factory=dict)

    @property
    def all(self) -> set[str]:
        return self.same.keys() | self.turned.keys()


def shared_constants(module: Module) -> Shared:
    """Which constants of a module have the contents of another one, or are it transposed.

    Only those that no graph returns. Contents are read where another constant
    has the same element type and size, so a module without such constants costs nothing.
    """
    out = Shared()
    for group in _alike(module):
        first: dict[tuple[object, str], Constant] = {}
        for constant in group:
            known = first.setdefault((constant.data.shape, constant.data.digest), constant)
            if known is not constant:
                out.same[constant.name] = known.name
        kept = list(first.values())
        for place, constant in enumerate(kept):
            source = next((c for c in kept[:place] if _is_turned(c, constant, out)), None)
            if source is not None:
                out.turned[constant.name] = source.name
    return out


def _alike(module: Module) -> Iterator[list[Constant]]:
    """Groups of two and more constants of one element type and size."""
    groups: defaultdict[object, list[Constant]] = defaultdict(list)
    for constant in module.constants.values():
        data = constant.data
        left_out = data.is_elided or data.strings is not None or data.nbytes < _LEAST
        if constant.is_used and not constant.is_output and not left_out:
            groups[data.elem, tuple(sorted(data.shape))].append(constant)
    return (group for group in groups.values() if len(group) > 1)


def _is_turned(source: Constant, constant: Constant, shared: Shared) -> bool:
    """Whether one matrix is the other transposed, and is itself in the file."""
    shape = source.data.shape
    if len(shape) != 2 or constant.data.shape != shape[::-1] or source.name in shared.turned:
        return False
    if source.data.elem.bits < 8:
        return False
    a, b = source.data.array(), constant.data.array()
    return bool((a[0, :1] == b[:1, 0]).all() and np.array_equal(a.T, b))
