"""The search of sensitive layers done straight: a whole model and a session for each trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from qdqc.calibration.table import Table
from qdqc.ir.clone import clone
from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.graph import Module
from qdqc.ir.op import Kind
from qdqc.ir.types import Quant, Range
from qdqc.ops import Dequantize, Quantize
from qdqc.pipeline.manager import PassManager
from qdqc.quant.arithmetic import activation_quant
from qdqc.quant.lowering import lower
from qdqc.quant.targets.target import activations
from qdqc.runtime.comparison.compare import cosine
from qdqc.runtime.sessions.session import Feeds, Runner
from qdqc.search.trials.layers import Layer, Layers, ranges_of
from qdqc.search.trials.mixed_models import MixedModels

__all__ = ["straight_losses"]


def straight_losses(
    models: MixedModels, tables: Mapping[str, Table], samples: Sequence[Feeds]
) -> dict[str, dict[str, float]]:
    """The loss of each layer by each method: 1 less the mean cosine of the first output.

    Each trial builds the float model with that layer quantized, opens it, and runs all samples
    through the whole of it. The best method of a layer holds for those that read it.
    """
    base = next(iter(tables.values()))
    layers = Layers(models, base)
    ranges = {m: ranges_of(models.planned(t)) for m, t in tables.items()}
    best = dict(next(iter(ranges.values())))
    plain = Runner(models.module, threads=1)
    output = plain.outputs[0]
    exact = [plain.run(feeds)[output] for feeds in samples]
    found: dict[str, dict[str, float]] = {}
    for layer in layers.every:
        losses: dict[str, float] = {}
        for method, own in ranges.items():
            module = _trial(layers, layer, best | {v.name: own[v.name] for v in layer.ranged})
            runner = Runner(module, threads=1)
            near = [cosine(runner.run(s)[output], e) for s, e in zip(samples, exact, strict=True)]
            losses[method] = 1.0 - fmean(near)
        chosen = min(losses, key=losses.__getitem__)
        best |= {v.name: ranges[chosen][v.name] for v in layer.ranged}
        found[layer.key] = losses
    return found


def _trial(layers: Layers, layer: Layer, ranges: Mapping[str, Range]) -> Module:
    """The whole float model with one layer in integers, as casts around it say."""
    module = clone(layers.planned)
    graph = module.graph
    for name, found in ranges.items():
        value = module.value(name)
        assert value is not None
        value.type = value.tensor.with_range(found)
    elem, symmetric = layers.target.activation, layers.models.deployment.symmetric
    if not layer.integer:
        names = {n.name for n in layer.readers}
        for own in layer.ranged:
            value = module.value(own.name)
            assert value is not None
            quant = activation_quant(ranges[own.name], elem, symmetric=symmetric)
            _round(module, value, quant, elem, lambda u: getattr(u, "name", "") in names)
        return module
    value = module.value(layer.name)
    node = None if value is None else value.producer
    assert node is not None
    traits = node.op.quant(*node.operand_types())
    if traits.kind is Kind.WEIGHTED:
        _lay_product(layers, module, node)
    else:
        for index in activations(node, traits):
            operand = node.operands[index]
            assert operand is not None
            quant = activation_quant(_range_of(operand), elem, symmetric=symmetric)
            _round(module, operand, quant, elem, lambda u, n=node: u is n)
        if traits.kind is Kind.PRESERVING:
            quant = activation_quant(_range_of(node.operands[0]), elem, symmetric=symmetric)
            _round(module, node.result, quant, elem)
        for own in layer.ranged:
            _round(module, node.result, layers.quant(layer, ranges[own.name]), elem)
    graph.module.drop_unused_constants()
    return module


def _lay_product(layers: Layers, module: Module, node: Node[Any]) -> None:
    """Let the deployment's own pass quantize a product, whose result is rounded as it says."""
    for other in module.graph.nodes():
        other.mode = "INT8" if other is node else "F32"
    source = layers.corrected.value(node.name)
    assert source is not None
    assert source.producer is not None
    operands: list[Value | None] = []
    for held in source.producer.operands:
        if isinstance(held, Constant):
            name = module.fresh_name(held.name)
            operands.append(module.add_constant(name, held.data, held.tensor))
        else:
            operands.append(None if held is None else module.value(held.name))
    node.set_operands(operands)
    PassManager([layers.models.quantize_pass()], verify_each=False).run(module)
    lower(module)


def _range_of(value: Value | None) -> Range:
    assert value is not None
    if isinstance(value, Constant):
        array = value.data.array()
        low, high = float(array.min(initial=0.0)), float(array.max(initial=0.0))
        return Range(low, high, max(-low, high))
    assert value.tensor.range is not None
    return value.tensor.range


def _round(
    module: Module, value: Value, quant: Quant, elem: Any, reads: Any = lambda user: True
) -> None:
    """Put QuantizeLinear and DequantizeLinear between a value and some of its readers."""
    graph, uses = module.graph, value.uses
    first = next(graph.nodes())
    place = first if value.producer is None else value.producer.next
    name = module.fresh_name(f"{value.name}_straight")
    stored = graph.insert(
        Quantize(), [value], [value.tensor.with_quant(elem, quant)], [name], before=place
    ).result
    view = graph.insert(
        Dequantize(), [stored], [value.tensor], [module.fresh_name(f"{name}_dq")], before=place
    ).result
    for use in uses:
        if isinstance(use.user, Node) and reads(use.user):
            use.user.set_operand(use.index, view)
