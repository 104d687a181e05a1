"""Evaluates nodes that depend on constants alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy.typing as npt

from qdqc.ir.core import Node, Value
from qdqc.ir.data import Data
from qdqc.ir.excerpt import excerpt
from qdqc.ir.types import TensorType
from qdqc.runtime.sessions.session import Runner

__all__ = ["evaluate"]

_AT_ONCE = 64 << 20
"""Bytes of results that one session computes, unless one of them is larger."""


def evaluate(nodes: Sequence[Node[Any]], wanted: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """The values of that names, computed by onnxruntime without its optimisations.

    The nodes stand in order and read constants and each other only. Results of many bytes lie
    in temporary files. Raises QdqcError where onnxruntime can't compute them.
    """
    values: dict[str, npt.NDArray[Any]] = {}
    for part in _parts(nodes):
        made = {r.name for node in part for r in node.present_results}
        names = [name for name in wanted if name in made]
        if not names:
            continue
        results = Runner(excerpt(part, names), optimise="off", threads=1).run({})
        values |= {name: _put_away(array) for name, array in results.items()}
    return values


def _put_away(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return Data.of(array).array() if array.dtype.kind in "fiu" else array


def _parts(nodes: Sequence[Node[Any]]) -> Iterator[list[Node[Any]]]:
    """Nodes in parts that read nothing of each other, of about ``_AT_ONCE`` bytes."""
    part: list[Node[Any]] = []
    size = 0
    for group in _connected(nodes):
        own = sum(_bytes(r) for node in group for r in node.present_results)
        if part and size + own > _AT_ONCE:
            yield part
            part, size = [], 0
        part += group
        size += own
    if part:
        yield part


def _connected(nodes: Sequence[Node[Any]]) -> list[list[Node[Any]]]:
    """Nodes that read each other's results, directly or not, together and in order."""
    leader: dict[Node[Any], Node[Any]] = {}

    def first(node: Node[Any]) -> Node[Any]:
        while leader[node] is not node:
            node = leader[node]
        return node

    for node in nodes:
        leader[node] = node
        makers = (v.producer for v in node.present_operands)
        for maker in {first(m) for m in makers if m in leader and m is not node}:
            leader[maker] = node
    groups: dict[Node[Any], list[Node[Any]]] = {}
    for node in nodes:
        groups.setdefault(first(node), []).append(node)
    return list(groups.values())


def _bytes(value: Value) -> int:
    size = value.type.size if isinstance(value.type, TensorType) else 0
    bits = value.elem.bits if value.elem is not None else 0
    return size * bits // 8 if isinstance(size, int) else 0
