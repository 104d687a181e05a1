"""Holds one module against another on the same inputs, value by value."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy.typing as npt

from qdqc.data.preprocess import Preprocess
from qdqc.ir.graph import Module
from qdqc.ir.live import domains_by_name, live_part
from qdqc.ir.types import Elem, TensorType
from qdqc.quant.arithmetic import quantize
from qdqc.runtime.comparison.choices import choices
from qdqc.runtime.comparison.compare import Comparison
from qdqc.runtime.comparison.pooled import Pools
from qdqc.runtime.sessions.sequences import as_given, flattened
from qdqc.runtime.sessions.session import Feeds, Runner

__all__ = ["check_against", "shared_values", "taken"]


def shared_values(module: Module, reference: Module) -> list[str]:
    """Names of float values of the top graph that both modules have, in the module's order."""
    shared: list[str] = []
    for node in module.graph.nodes():
        for result in node.present_results:
            other = reference.value(result.name)
            if other is None or other.producer is None or other.graph is not reference.graph:
                continue
            if _is_float(result.type):
                shared.append(result.name)
    return shared


def _is_float(type_: object) -> bool:
    return isinstance(type_, TensorType) and type_.expressed().elem in (Elem.F32, Elem.F64)


def check_against(
    module: Module,
    reference: Module,
    samples: Iterable[Feeds],
    tolerance: tuple[float, float],
    excepts: Sequence[str] = (),
    *,
    every_value: bool = True,
    spread: bool = True,
) -> tuple[Comparison, dict[str, npt.NDArray[Any]]]:
    """Run both modules over the samples, each of whose values are pooled.

    Numbers that no reader of a value tells apart count as equal. What follows from a choice among
    numbers is reported, and the numbers that decide it are judged instead. ``spread`` is that of
    ``Pool``. Returns the comparison in graph order and the values of the module on the last sample,
    its inputs among them.
    """
    shared = shared_values(module, reference)
    decided = choices(reference)
    taps = shared if every_value else [n for n in shared if n in decided.numbers]
    ours = Runner(module, taps)
    theirs = Runner(reference, taps)
    decided = decided.within({*taps, *theirs.outputs, *theirs.inputs})
    pools, live = Pools(excepts, decided, spread=spread), domains_by_name(reference.graph)
    values: dict[str, npt.NDArray[Any]] = {}
    for feeds in samples:
        given = taken(module, reference, feeds)
        values = flattened({n: given[n] for n in ours.inputs if n in given}) | ours.run(given)
        expected = theirs.run(feeds)
        order = [*taps, *(n for n in expected if n not in taps)]
        pools.see(
            {n: live_part(a, live.get(n)) for n, a in values.items()},
            {n: live_part(expected[n], live.get(n)) for n in order},
        )
    return pools.comparison(tolerance), values


def taken(module: Module, reference: Module, feeds: Feeds) -> dict[str, Any]:
    """The float reference's inputs as the module takes them: as integers, or as pixels."""
    inputs = {name: as_given(value) for name, value in feeds.items()}
    for value in module.graph.inputs:
        other = reference.value(value.name)
        if other is None or other.type == value.type or inputs[value.name].dtype.kind != "f":
            continue
        stated = Preprocess.from_attrs(reference.graph.input_attrs.get(value.name))
        quant = value.tensor.quant
        if quant is not None:
            inputs[value.name] = quantize(inputs[value.name], quant, value.tensor.elem)
        elif stated is not None and value.tensor.elem is Elem.U8:
            inputs[value.name] = stated.pixels(inputs[value.name])
    return inputs
