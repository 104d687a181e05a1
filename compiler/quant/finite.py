"""Weights that are not finite: neither integers nor half precision can stand for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from qdqc.ir.core import Constant, Node
from qdqc.ir.graph import Graph
from qdqc.ops import Gemm, MatMul
from qdqc.quant.arithmetic import numbers

__all__ = ["OddWeight", "is_finite", "odd_weights"]

_PARAMETERS = frozenset({"weight", "bias", "scale", "mean", "var", "w", "r", "p"})
"""What products, norms and recurrent ops call their parameters; a mask has another name."""

_FACTORS = frozenset({"a", "b", "c"})


@dataclass(frozen=True)
class OddWeight:
    """A parameter of a node with ``nans`` and ``infs`` of its ``size`` numbers not finite.

    ``first`` is the place of the first of them.
    """

    node: Node[Any]
    constant: Constant
    nans: int
    infs: int
    size: int
    first: tuple[int, ...]

    @property
    def message(self) -> str:
        """One sentence that names the constant."""
        counts = ((self.nans, "NaN"), (self.infs, "infinite"))
        text = " and ".join(f"{n} {what}" for n, what in counts if n)
        place = ", ".join(map(str, self.first))
        return f"'{self.constant.name}' has {text} of {self.size} elements, first at [{place}]"


def odd_weights(graph: Graph) -> Iterator[OddWeight]:
    """Weights and biases of products, norms and recurrent nodes that are not finite.

    A constant that is added behind a product as floats may be a mask: infinity is right there, and
    only NaN is reported.
    """
    seen: dict[Constant, tuple[int, int, int]] = {}
    for node in graph.walk():
        for index in _parameters(node):
            value = node.at(index)
            if not isinstance(value, Constant) or value.data.is_elided:
                continue
            if not value.tensor.expressed().elem.is_float:
                continue
            if value not in seen:
                seen[value] = _counts(numbers(value))
            nans, infs, first = seen[value]
            may_mask = index == node.traits.float_bias
            if nans or (infs and not may_mask):
                shape = value.data.shape
                place = tuple(int(i) for i in np.unravel_index(first, shape)) if shape else ()
                yield OddWeight(node, value, nans, infs, value.data.array().size, place)


def is_finite(constant: Constant) -> bool:
    """Whether all numbers of a constant are finite, as far as they are at hand."""
    return constant.data.is_elided or not any(_counts(numbers(constant))[:2])


def _parameters(node: Node[Any]) -> list[int]:
    """Positions of the operands that hold weights, where they are constants."""
    op = node.op
    names = _PARAMETERS | _FACTORS if isinstance(op, MatMul | Gemm) else _PARAMETERS
    return [i for i, spec in enumerate(op.operand_specs) if spec.name in names]


def _counts(array: Any) -> tuple[int, int, int]:
    """How many NaN and infinite numbers there are, and the flat index of the first."""
    wide = np.asarray(array)
    if wide.dtype.kind not in "fc":  # bfloat16 and float8 of a type library
        wide = wide.astype(np.float32)
    finite = np.isfinite(wide).reshape(-1)
    if finite.all():
        return 0, 0, 0
    nans = int(np.isnan(wide).sum())
    return nans, int((~finite).sum()) - nans, int(np.argmin(finite))
