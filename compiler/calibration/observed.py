"""Which values calibration looks at: those whose numbers no other value tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from qdqc.calibration.channels import channel_inputs
from qdqc.ir.core import Constant
from qdqc.ir.graph import Graph
from qdqc.ir.types import Elem

__all__ = ["Plan", "plan_of"]


@dataclass(frozen=True)
class Plan:
    """What is looked at. ``names`` are all values of the table, in graph order.

    ``taps`` are those that are fetched; each other one has the elements of ``shared[name]``,
    so its statistics are the same. Of ``integers``, the inputs such as indices and masks, only
    the extremes are noted. ``channels`` are the taps that need means per channel.
    """

    names: tuple[str, ...]
    shared: Mapping[str, str]
    integers: tuple[str, ...]
    channels: tuple[str, ...]

    @property
    def taps(self) -> tuple[str, ...]:
        return tuple(n for n in self.names if n not in self.shared)

    def part(self, taps: Sequence[str], integers: Sequence[str]) -> Plan:
        """The plan that looks at some of the taps."""
        wanted = set(taps)
        channels = tuple(n for n in self.channels if n in wanted)
        return replace(
            self, names=tuple(taps), shared={}, integers=tuple(integers), channels=channels
        )


def plan_of(graph: Graph) -> Plan:
    """The plan of a graph: all float32 tensors of the top graph, inputs and results of nodes.

    Constants have no part in it, nor has what is inside nested graphs.
    """
    channels = tuple(channel_inputs(graph))
    shared: dict[str, str] = {}
    for node in graph.nodes():
        source = node.at(0) if node.op.permutes else None
        if source is None or isinstance(source, Constant) or node.result.name in channels:
            continue
        if node.result.elem is Elem.F32:
            shared[node.result.name] = shared.get(source.name, source.name)
    results = (r for node in graph.nodes() for r in node.present_results)
    names = tuple(v.name for v in (*graph.inputs, *results) if v.elem is Elem.F32)
    integers = tuple(v.name for v in graph.inputs if v.elem is not None and v.elem.is_integer)
    return Plan(names, shared, integers, channels)
