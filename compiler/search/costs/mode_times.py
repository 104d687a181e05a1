"""What nodes take in each mode on this machine, and what casts between them take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from qdqc.calibration.table import Table
from qdqc.ir.core import Value
from qdqc.ir.graph import Module
from qdqc.ir.op import Kind
from qdqc.ops import Dequantize, Quantize
from qdqc.runtime.sessions.session import Feeds
from qdqc.search.costs.node_costs import elements, layer_names, layer_times, seconds_an_element
from qdqc.search.trials.layers import Layers
from qdqc.search.trials.mixed_models import MixedModels

__all__ = ["ModeTimes", "measure_times"]

_SPENT = 0.5
"""Seconds that the profile of a model may take, in runs of it."""
_RUNS = (3, 20)
_CAST = 2.5e-6
"""Seconds that a cast takes beside those for its elements: a kernel is called."""
_REORDER = 0.12e-9
"""Seconds an element beside a float convolution of images, whose channels lie in blocks."""
_IMAGE = 4


@dataclass(frozen=True)
class ModeTimes:
    """Seconds of nodes by mode and name, and of a cast of each value by its name.

    They come of so many ``runs``. ``fused`` are pairs of nodes that one float kernel computes.
    """

    nodes: Mapping[str, Mapping[str, float]]
    quantized: Mapping[str, float]
    dequantized: Mapping[str, float]
    runs: int
    fused: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def entries(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    def of(self, name: str, mode: str) -> float:
        """Seconds of a node in a mode; 0 where no kernel is its own."""
        return self.nodes.get(mode, {}).get(name, 0.0)


def measure_times(
    models: MixedModels,
    layers: Layers,
    table: Table,
    feeds: Feeds,
    others: Mapping[str, Iterable[str]],
    seconds: float,
) -> ModeTimes:
    """Profile the model in float, in INT8, and with the nodes that ``others`` name by mode in it.

    One thread. ``seconds`` are those of a run in float. Raises QdqcError where onnxruntime refuses
    a model.
    """
    module = models.module
    runs = int(min(_RUNS[1], max(_RUNS[0], _SPENT / max(seconds, 1e-9))))
    every = [n.name for n in module.graph.nodes()]
    modules = {"F32": module, "INT8": models.lowered(table)}
    for mode, chosen in others.items():
        modes = dict.fromkeys(every, "F32") | dict.fromkeys(chosen, mode)
        modules[mode] = models.lowered(table, modes)
    nodes = layer_times(modules, feeds, layer_names(module), runs)
    sizes = elements(layers.planned, feeds)
    each = {op: seconds_an_element(op) for op in (Quantize, Dequantize)}
    casts = [
        {v.name: _seconds(v, sizes.get(v.name, 0), each[op]) for v in _values(layers)}
        for op in (Quantize, Dequantize)
    ]
    return ModeTimes(nodes, casts[0], casts[1], runs, tuple(_fused(module, nodes["F32"])))


def _values(layers: Layers) -> list[Value]:
    graph = layers.planned.graph
    return [*graph.inputs, *(r for n in graph.nodes() for r in n.present_results)]


def _seconds(value: Value, size: int, each: float) -> float:
    producer = value.producer
    users = [*value.users, *((producer,) if producer is not None else ())]
    is_image = value.tensor.rank == _IMAGE and any(n.op.name == "conv" for n in users)
    return _CAST + size * each + (_CAST + size * _REORDER if is_image else 0.0)


def _fused(module: Module, times: Mapping[str, float]) -> Iterable[tuple[str, str]]:
    """Nodes that have no kernel of their own in float, each with the one that it lies within.

    That is the only reader of its result where it can be a part of one, else what it reads.
    """
    for node in module.graph.nodes():
        kind = node.traits.kind
        if kind not in (Kind.WEIGHTED, Kind.ARITHMETIC, Kind.FLOAT) or times.get(node.name):
            continue
        maker = next((v.producer for v in node.present_operands if v.producer is not None), None)
        users = node.result.users if len(node.present_results) == 1 else ()
        if kind is Kind.WEIGHTED and len(users) == 1:
            yield node.name, users[0].name
        elif maker is not None and times.get(maker.name):
            yield maker.name, node.name
