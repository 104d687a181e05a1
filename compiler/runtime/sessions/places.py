"""Names of nodes that say where they stand: onnxruntime's rewrites keep them in their own names."""

from __future__ import annotations

import re
from collections.abc import Iterable

from onnx import NodeProto

__all__ = ["blocked_tensor", "name_by_place", "places_in"]

_BLOCKED = "_nchwc"
"""What onnxruntime puts behind the name of a tensor to name its kernel in blocks of channels."""
_PLACE = re.compile(r"(?<![A-Za-z0-9])n(\d+)(?!\d)")


def name_by_place(nodes: Iterable[NodeProto]) -> list[NodeProto]:
    """Name the nodes ``n0``, ``n1`` and so on, in place; returns them in that order."""
    named = list(nodes)
    for place, node in enumerate(named):
        node.name = f"n{place}"
    return named


def places_in(name: str) -> list[int]:
    """The places of the nodes that a kernel was made of, whatever onnxruntime put around them."""
    return [int(place) for place in _PLACE.findall(name)]


def blocked_tensor(name: str) -> str:
    """The tensor that a kernel in blocks of channels gives by its name; nothing for others."""
    return name.removesuffix(_BLOCKED) if name.endswith(_BLOCKED) else ""
