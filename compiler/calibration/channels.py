"""Means per channel of what convolutions and products read, for the correction of biases."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from qdqc.ir.graph import Graph
from qdqc.ir.op import Kind
from qdqc.ir.types import Array, Elem

__all__ = ["CHANNEL_AXIS", "ChannelMean", "channel_inputs"]

CHANNEL_AXIS = 1
"""The axis of channels in what Conv (NC...) and Gemm ([M,K]) read."""


@dataclass
class ChannelMean:
    """The running mean of each channel; sums are float64, so their order hardly matters."""

    total: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    count: int = 0

    def update(self, array: Array) -> None:
        """Take in a tensor [N, C, ...] with finite numbers; others are left out as a whole."""
        others = tuple(i for i in range(array.ndim) if i != CHANNEL_AXIS)
        channels = array.shape[CHANNEL_AXIS]
        if not array.size:
            return
        with np.errstate(over="ignore", invalid="ignore"):
            means = array.mean(axis=others, dtype=np.float32).astype(np.float64)
        if not np.isfinite(means).all():
            return
        weight = array.size // channels
        self.total = means * weight + (self.total if self.count else 0.0)
        self.count += weight

    def merge(self, other: ChannelMean) -> ChannelMean:
        """Both together."""
        if not self.count or not other.count:
            return self if self.count else other
        return ChannelMean(self.total + other.total, self.count + other.count)

    @property
    def mean(self) -> tuple[float, ...]:
        """One number a channel; empty when nothing was seen."""
        return tuple((self.total / self.count).tolist()) if self.count else ()


def channel_inputs(graph: Graph) -> list[str]:
    """Names of float values that a weighted op with a bias reads and whose channels are known."""
    names: dict[str, None] = {}
    for node in graph.nodes():
        traits = node.traits
        value = node.at(0)
        if traits.kind is not Kind.WEIGHTED or traits.bias is None or value is None:
            continue
        shape = value.shape
        if value.elem is not Elem.F32 or shape is None:
            continue
        if len(shape) > CHANNEL_AXIS and isinstance(shape[CHANNEL_AXIS], int):
            names[value.name] = None
    return list(names)
