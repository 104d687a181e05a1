"""Holds one module against another on the same inputs, value by value."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from qdqc.data.preprocess import Preprocess
from qdqc.ir.graph import Module
from qdqc.ir.types import Elem, TensorType
from qdqc.quant.arithmetic import quantize
from qdqc.runtime.comparison.compare import Comparison, Level, Similarity, compare
from qdqc.runtime.sessions.session import Feeds, Runner

__all__ = ["check_against", "mean_similarities", "shared_values", "taken"]


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
) -> tuple[Comparison, dict[str, npt.NDArray[Any]]]:
    """Run both modules; similarities are means over the samples, levels the worst of them.

    Returns the comparison in graph order and the values of the module on the last sample, its
    inputs among them.
    """
    taps = shared_values(module, reference) if every_value else []
    ours = Runner(module, taps)
    theirs = Runner(reference, taps)
    rounds: list[Comparison] = []
    values: dict[str, npt.NDArray[Any]] = {}
    for feeds in samples:
        given = taken(module, reference, feeds)
        values = {n: given[n] for n in ours.inputs if n in given} | ours.run(given)
        expected = theirs.run(feeds)
        order = [*taps, *(n for n in expected if n not in taps)]
        rounds.append(compare(values, {n: expected[n] for n in order}, tolerance, excepts))
    return mean_similarities(rounds, tolerance), values


def taken(module: Module, reference: Module, feeds: Feeds) -> dict[str, npt.NDArray[Any]]:
    """The float reference's inputs as the module takes them: as integers, or as pixels."""
    inputs = {name: np.asarray(array) for name, array in feeds.items()}
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


def mean_similarities(rounds: Sequence[Comparison], tolerance: tuple[float, float]) -> Comparison:
    """One comparison of several: figures are means over the rounds, and decide the level.

    A value is EQUAL or CLOSE where it was so in every round.
    """
    if not rounds:
        return Comparison((), tolerance)
    rows = [_mean(same, tolerance) for same in zip(*(r.rows for r in rounds), strict=True)]
    return Comparison(tuple(rows), tolerance)


def _mean(same: Sequence[Similarity], tolerance: tuple[float, float]) -> Similarity:
    order = list(Level)
    worst = max((s.level for s in same), key=order.index)
    cos, euclid = float(np.mean([s.cos for s in same])), float(np.mean([s.euclid for s in same]))
    if worst in (Level.SIMILAR, Level.NOT_SIMILAR):
        passed = cos >= tolerance[0] and euclid >= tolerance[1]
        worst = Level.SIMILAR if passed else Level.NOT_SIMILAR
    sqnr = float(np.mean([s.sqnr for s in same]))
    return Similarity(same[0].name, cos, euclid, sqnr, worst)
