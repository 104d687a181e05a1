"""What mixed models take, predicted from measured times of nodes in float and in integers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

from qdqc.calibration.table import Table
from qdqc.ir.core import Constant, Value
from qdqc.ir.graph import Module
from qdqc.ir.types import TensorType
from qdqc.onnx_io.rooted import rooted_model
from qdqc.ops import Dequantize, Quantize
from qdqc.quant.targets.target import activations
from qdqc.runtime.sessions.session import Feeds, Runner
from qdqc.runtime.timing.latency import interleave, kernel_times
from qdqc.runtime.timing.node_times import profile_nodes
from qdqc.search.trials.trials import Trials

__all__ = [
    "Costs",
    "elements",
    "layer_names",
    "layer_times",
    "measure_costs",
    "seconds_an_element",
    "seconds_of",
]

_ROUNDS = 30
_PROFILED = 20
"""Runs that the times of nodes are medians of."""
_PROBES = (2, 3)
"""Mixed models that tell what borders cost: every second layer float, and every third."""


@dataclass(frozen=True)
class Costs:
    """Seconds of models: ``integer`` is the whole INT8 model, ``float`` the float one.

    ``saved`` is what each integer layer is measured to save, ``quantized`` and ``dequantized``
    are the seconds of a cast of each value by itself. A border costs ``border`` times these in a
    model: a runtime changes its layout there as well, and joins fewer nodes.
    """

    trials: Trials
    integer: float
    float: float
    saved: Mapping[str, float]
    quantized: Mapping[str, float]
    dequantized: Mapping[str, float]
    border: float = 1.0

    def fitted(self, probes: Mapping[frozenset[str], float]) -> Costs:
        """With the ``border`` by which mixed models that were measured come out best.

        The least squares of what is left of their seconds beside that of their nodes.
        """
        bare = replace(self, border=0.0)
        left = {s: seconds - bare.seconds(s) for s, seconds in probes.items()}
        casts = {s: self._extra_casts(s) for s in probes}
        weight = sum(c * c for c in casts.values())
        border = sum(left[s] * casts[s] for s in probes) / weight if weight > 0 else 1.0
        return replace(self, border=max(0.0, border))

    def seen(self, whole: Mapping[frozenset[str], float]) -> Costs:
        """With the quicker times where the models without float layers, or with all, ran again."""
        integer = whole.get(frozenset(), self.integer)
        float_ = whole.get(frozenset(self.saved), self.float)
        return replace(self, integer=min(integer, self.integer), float=min(float_, self.float))

    def seconds(self, floats: Collection[str]) -> float:
        """The predicted seconds of the model in which these nodes stay float.

        Times of nodes add up, and so do those of borders; both are scaled so that the two
        models that were measured whole come out as they were.
        """
        chosen = frozenset(floats)
        nodes = self._share(chosen) * (self.float - self.integer)
        return self.integer + nodes + self.border * self._extra_casts(chosen)

    def _share(self, floats: frozenset[str]) -> float:
        """How much of what integers save is lost."""
        lost = set(self.saved) - self.trials.layers.integer_without(floats)
        everything = sum(self.saved.values())
        if everything <= 0:  # nothing is saved, or times are all noise
            return len(lost) / max(1, len(self.saved))
        return sum(self.saved[n] for n in lost) / everything

    def _extra_casts(self, floats: frozenset[str]) -> float:
        """Seconds of casts beyond those that the ends have by this share."""
        whole = frozenset(layer.name for layer in self.trials.layers.integer)
        ends = (self._casts(frozenset()), self._casts(whole))
        return self._casts(floats) - ends[0] - self._share(floats) * (ends[1] - ends[0])

    def _casts(self, floats: frozenset[str]) -> float:
        """Seconds of all casts of a mixed model."""
        made, rounded, spread = set[Value](), set[Value](), set[Value]()
        decided = self.trials.layers.decided(floats)
        for node, decision in decided.items():
            if decision.integer and decision.result:
                made.update(node.present_results)
        for node, decision in decided.items():
            read = {v for v in node.present_operands if not isinstance(v, Constant)}
            if not decision.integer:
                spread |= read & made
                continue
            taken = {node.operands[i] for i in activations(node, decision.traits)}
            rounded |= {v for v in read & taken if v not in made}
        spread |= {v for v in self.trials.layers.planned.graph.outputs if v in made}
        total = sum(self.quantized.get(v.name, 0.0) for v in rounded)
        return total + sum(self.dequantized.get(v.name, 0.0) for v in spread)


def measure_costs(trials: Trials, table: Table, feeds: Feeds) -> Costs:
    """Run the float and the INT8 model side by side, and profile their nodes. One thread.

    Raises QdqcError where onnxruntime refuses a model.
    """
    module = trials.models.module
    lowered = trials.models.lowered(table)
    probes = _probes(trials)
    mixed = {str(n): trials.models.lowered(table, s) for n, s in enumerate(probes)}
    whole = seconds_of({"float": module, "integer": lowered, **mixed}, feeds)
    names = layer_names(module)
    times = list(layer_times({"float": module, "integer": lowered}, feeds, names).values())
    layers = [layer.name for layer in trials.layers.integer]
    saved = {n: times[0].get(n, 0.0) - times[1].get(n, 0.0) for n in layers}
    each = {op: seconds_an_element(op) for op in (Quantize, Dequantize)}
    values = elements(trials.layers.planned, feeds)
    costs = Costs(
        trials,
        whole["integer"],
        whole["float"],
        saved,
        {n: each[Quantize] * size for n, size in values.items()},
        {n: each[Dequantize] * size for n, size in values.items()},
    )
    return costs.fitted({s: whole[str(n)] for n, s in enumerate(probes)})


def _probes(trials: Trials) -> list[frozenset[str]]:
    """Sets of float layers with borders all over the network."""
    names = [layer.name for layer in trials.layers.integer]
    return [frozenset(names[step - 1 :: step]) for step in _PROBES]


def seconds_of(
    modules: Mapping[str, Module], feeds: Feeds, rounds: int = _ROUNDS, repeats: int = 1
) -> dict[str, float]:
    """The seconds of the quickest run of each module on one thread, all of them interleaved.

    What else a machine does only ever adds. ``repeats`` runs in a row make one of a small model.
    """
    runs = {name: Runner(module, threads=1).call(feeds) for name, module in modules.items()}
    times = interleave(runs, rounds, repeats=repeats, primed=True)
    return {n: float(s.min()) for n, s in times.items()}


def layer_names(module: Module) -> dict[str, str]:
    """The layer of each name of a value and of an ONNX node that it stands for."""
    layers: dict[str, str] = {}
    for node in module.graph.nodes():
        for name in (*node.loc.names, *(r.name for r in node.present_results)):
            layers.setdefault(name, node.name)
    return layers


def layer_times(
    modules: Mapping[str, Module], feeds: Feeds, names: Mapping[str, str], runs: int = _PROFILED
) -> dict[str, dict[str, float]]:
    """Seconds by layer of float or lowered modules, their casts with the node that they stand by.

    ``names`` are those of ``layer_names``; kernels that belong to no layer are left out.
    """
    times = profile_nodes(modules, feeds, runs=runs, optimise="all")
    by_module: dict[str, dict[str, float]] = {}
    for key, module in modules.items():
        layers = by_module.setdefault(key, {})
        for name, seconds in times[key].items():
            value = module.value(name)
            node = None if value is None else value.producer
            known = (name, *(node.loc.names if node is not None else ()))
            layer = next((names[n] for n in known if n in names), None)
            if layer is not None:
                layers[layer] = layers.get(layer, 0.0) + seconds
    return by_module


def elements(module: Module, feeds: Feeds) -> dict[str, int]:
    """Elements of all values for these inputs; those that the types do not state by a run."""
    from qdqc.calibration.demand import stated_sizes

    graph = module.graph
    values = (*graph.inputs, *(r for n in graph.nodes() for r in n.present_results))
    names = [v.name for v in values if isinstance(v.type, TensorType)]
    sizes = stated_sizes(graph, names, dict(feeds))
    unknown = [n for n, size in sizes.items() if size is None]
    values = Runner(module, unknown, threads=1, lean=True).run(feeds) if unknown else {}
    return {n: values[n].size if size is None else size for n, size in sizes.items()}


def seconds_an_element(op: type[Quantize | Dequantize]) -> float:
    """What a cast takes for each element, measured on a tensor of the size of images."""
    from qdqc.ir.types import Elem, Quant

    size = 1 << 18
    module = Module("cast", {"": 17})
    plain = TensorType(Elem.F32, (1, size))
    stored = plain.with_quant(Elem.U8, Quant.make(0.02, 128))
    graph = module.graph
    if op is Quantize:
        x = graph.add_input("x", plain)
        out = graph.insert(Quantize(), [x], [stored], ["y"]).result
        feeds = {"x": np.linspace(-1, 1, size, dtype=np.float32)[None]}
    else:
        x = graph.add_input("x", stored)
        out = graph.insert(Dequantize(), [x], [plain], ["y"]).result
        feeds = {"x": np.arange(size, dtype=np.uint8)[None]}
    graph.set_outputs([out])
    kernels = kernel_times(rooted_model(module), feeds)
    return sum(kernels.values()) / size
