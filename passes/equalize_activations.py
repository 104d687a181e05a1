"""equalize-activations: channels that grouped convolutions read are brought to one reach."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from qdqc.ir.core import Value
from qdqc.ir.graph import Graph
from qdqc.pipeline.pass_ import PassContext
from qdqc.quant.targets.target import Target, target_named
from qdqc.tuning.columns import Product, product_of
from qdqc.tuning.data_pass import DataPass, TuningData
from qdqc.tuning.product_inputs import Read, Wanted, stream
from qdqc.tuning.scaling import Scaling, apply, scaled_upstream

__all__ = ["EqualizeActivations"]

_DEAD = 1e-4
"""Channels that reach less than this share of the furthest are left: rounding is all they hold."""

_SETTLED = 1e-3
"""Factors this near to one change nothing that counts."""

Ends: TypeAlias = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
"""The least and largest number of each channel."""


class EqualizeActivations(DataPass):
    """Let the channels that grouped convolutions read reach equally far, as seen on the data.

    A value has one scale, and a channel that reaches a tenth of its range has a tenth of its
    steps. Where all readers of a value are convolutions by group, each row of their weights has
    a scale of its own and reads one group. A factor f for a group, ``(W2 / f) relu(f W1 x + f b)``,
    then costs no precision in either weight, and gives the group f times as many steps. f brings
    the ends of the group to those of the value, and is ``most`` at most; in depthwise
    convolutions a group is a channel. The float function stays the same. A residual or an output
    wants the value as it is, a bound such as that of Relu6 does not scale, and constants other
    than the weights of a product may share one scale: these values are declined.
    """

    name = "equalize-activations"

    most: float = 64.0
    target: str = "ort-cpu"

    def run(self, graph: Graph, ctx: PassContext) -> int:
        data, target = self.data(graph, ctx), target_named(self.target)
        groups = self._groups(graph, target, ctx)
        done = 0
        for value, ends in _ends_of(graph, groups, data).items():
            done += self._equalize(value, groups[value], ends, ctx)
        graph.module.drop_unused_constants()
        ctx.statistics["values equalized"] += done
        return done

    def _groups(self, graph: Graph, target: Target, ctx: PassContext) -> dict[Value, int]:
        """Values whose channels can be scaled, and how many channels in a row share a factor."""
        sizes: dict[Value, int] = {}
        for node in graph.nodes():
            first = product_of(node)
            if isinstance(first, str) or not first.columns.kernel or first.x in sizes:
                continue
            if first.columns.groups == 1:
                continue
            size = _shared_by(first.x, target)
            if isinstance(size, str):
                ctx.decline(self.name, node, size)
            else:
                sizes[first.x] = size
        return sizes

    def _equalize(self, value: Value, size: int, ends: Ends, ctx: PassContext) -> bool:
        """Scale a value whose channels have these ends; whether that changed anything."""
        readers = _readers(value)
        assert not isinstance(readers, str)
        factors = _factors(ends, size, self.most)
        if np.abs(np.log(factors)).max(initial=0.0) < _SETTLED:
            ctx.decline(self.name, readers[0].node, f"the channels of {value} reach equally far")
            return False
        scaling = _scaled(value, readers, factors)
        assert not isinstance(scaling, str)
        apply(scaling)
        for reader in readers:
            reader.scale_inputs(1 / factors)
        return True


def _readers(value: Value) -> list[Product] | str:
    """All that read the value; else which of them is no convolution that reads it by group."""
    readers: list[Product] = []
    for node in value.users:
        reader = product_of(node)
        if isinstance(reader, str):
            return f"{node.op.name} %{node.name} reads {value} too: {reader}"
        if reader.x is not value or not reader.columns.kernel or reader.columns.groups == 1:
            return f"{node.op.name} %{node.name} mixes the channels of {value}"
        readers.append(reader)
    return readers


def _shared_by(value: Value, target: Target) -> int | str:
    """How many channels in a row each reader takes in whole groups; else why none are scaled."""
    readers = _readers(value)
    if isinstance(readers, str):
        return readers
    for reader in readers:
        if (lack := target.no_kernel(reader.node, reader.traits)) is not None:
            return lack
    channels = value.tensor.shape[1] if value.tensor.shape else None
    if not isinstance(channels, int):
        return f"the channels of {value} are not known"
    scaling = _scaled(value, readers, np.ones(channels))
    if isinstance(scaling, str):
        return scaling
    maker = scaling.edits[0].node
    if isinstance(product_of(maker), str):
        return f"it comes from {maker.op.name}"
    return math.lcm(*(channels // reader.columns.groups for reader in readers))


def _scaled(
    value: Value, readers: list[Product], factors: npt.NDArray[np.float64]
) -> Scaling | str:
    """How the value, which these alone read, is multiplied by channel."""
    shape = [-1 if axis == 1 else 1 for axis in range(value.tensor.rank or 2)]
    return scaled_upstream(value, factors.reshape(shape), [reader.node for reader in readers])


def _ends_of(graph: Graph, values: Iterable[Value], data: TuningData) -> dict[Value, Ends]:
    """The ends of each channel of these values over all samples."""
    reads = {value: _read(value) for value in values}
    ends: dict[Value, Ends] = {}
    if not reads:
        return ends
    counted = Wanted(dense=0, grouped=0)
    for seen in stream(graph.module, list(reads.values()), data.samples, data.masking, counted):
        for value, read in reads.items():
            low, high = ends.get(value, (seen[read].low, seen[read].high))
            ends[value] = np.minimum(low, seen[read].low), np.maximum(high, seen[read].high)
    return ends


def _read(value: Value) -> Read:
    """How one of its readers, which all see the same channels, reads the value."""
    reader = product_of(value.users[0])
    assert not isinstance(reader, str)
    return value.name, reader.columns


def _factors(ends: Ends, size: int, most: float) -> npt.NDArray[np.float64]:
    """By channel what widens it to the ends of the value; one for groups that hold nothing.

    No group passes an end of the value, so that its range stays what it was.
    """
    sides = [np.maximum(side.astype(np.float64), 0) for side in (-ends[0], ends[1])]
    groups = [side.reshape(-1, size).max(axis=1) for side in sides]
    reach = np.maximum(*groups)
    alive = reach > _DEAD * reach.max(initial=0)  # nothing is where numbers are not finite
    factors = np.full(len(reach), most)
    for side in groups:
        inside = alive & (side > 0)
        factors[inside] = np.minimum(factors[inside], side.max() / side[inside])
    return np.repeat(np.where(alive, factors, 1.0), size)
