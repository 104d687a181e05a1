"""TPU-MLIR's mixed precision search: a walk from the input by how like each layer stays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from qdqc.calibration.table import Table
from qdqc.diagnostics import visible
from qdqc.ir.op import Kind
from qdqc.runtime.comparison.pooled import Pool
from qdqc.runtime.sessions.session import Runner
from qdqc.search.strategies.mixes import Mixes
from qdqc.search.strategies.strategy import Search, Strategy
from qdqc.search.trials.layers import Layer
from qdqc.search.trials.trials import Trials

__all__ = ["Step", "Walk", "layer_cosines", "loss_table", "walk"]

_SHARE = 0.25
"""The walk gives up when more than that part of the layers is float."""


@dataclass(frozen=True)
class Step:
    """A layer that was tried in float with those behind it, and what came of it."""

    layer: Layer
    floats: frozenset[str]
    score: float
    kept: bool


def layer_cosines(
    trials: Trials,
    table: Table,
    progress: Callable[[int, int, str], object] = lambda done, total, note: None,
) -> dict[str, float]:
    """How like each layer's value in the INT8 model is to that in the float one.

    Integer layers in graph order, but for those that only move elements. The values of one
    sample are held at a time.
    """
    layers = trials.layers
    names = [x.name for x in layers.integer if layers.kind(x) is not Kind.PRESERVING]
    exact = Runner(trials.models.module, names, threads=1)
    quantized = Runner(trials.models.lowered(table), names, threads=1)
    pools = {name: Pool() for name in names}
    for number, sample in enumerate(trials.samples, 1):
        a, b = quantized.run(sample), exact.run(sample)
        for name in names:
            pools[name].see(a[name], b[name])
        progress(number, len(trials.samples), "")
    return {name: pool.likeness() for name, pool in pools.items()}


def walk(
    mixes: Mixes,
    cosines: Mapping[str, float],
    least: float,
    report: Callable[[Step], None] = lambda step: None,
) -> None:
    """Leave layers below the ``least`` cosine float, and those that read them, one by one.

    A step that makes the outputs no better is taken back. The walk ends where the goal is
    reached, or where more than a quarter of the layers is float; all models that it meets are
    verified in ``mixes``, whose best one is the result. (TPU-MLIR stops as well, but takes the
    last set, whatever it scored.)
    """
    layers = mixes.trials.layers
    floats = frozenset[str]()
    score = mixes.score()
    for layer in layers.integer:
        if score >= mixes.goal or len(floats) > _SHARE * len(layers.integer):
            return
        if cosines.get(layer.name, 1.0) >= least or layer.name in floats:
            continue
        tried = floats | {layer.name} | _readers(mixes.trials, layer)
        reached = mixes.score(tried)
        kept = reached > score
        report(Step(layer, tried, reached, kept))
        if kept:
            floats, score = tried, reached


def _readers(trials: Trials, layer: Layer) -> frozenset[str]:
    """The integer layers that read a layer's values."""
    names = {x.name for x in trials.layers.integer}
    users = (user for value in layer.values for user in value.users)
    return frozenset(user.name for user in users if user.name in names)


def loss_table(cosines: Mapping[str, float], target: str, fp_type: str) -> str:
    """The text of TPU-MLIR's loss table, least like first."""
    rows = sorted(cosines.items(), key=lambda row: row[1])
    lines = [f"# chip: {target}  mix_mode: {fp_type}", "###"]
    lines += [
        f"No.{place:<4}: Layer: {visible(name):<50}\t\t\tCos: {cos:.6f}"
        for place, (name, cos) in enumerate(rows)
    ]
    return "\n".join(lines) + "\n"


class Walk(Strategy):
    """Walk from the input by the likeness of layers, as TPU-MLIR's mix of precisions does.

    Layers whose value is less like the float one than ``min_layer_cos`` are tried in float.
    """

    name = "mix"

    min_layer_cos: float = 0.99

    def run(self, search: Search) -> None:
        mixes = search.mixes
        search.cosines = layer_cosines(mixes.trials, mixes.table, search.stage("layers", "sample"))
        search.own_losses = {n: 1.0 - cos for n, cos in search.cosines.items()}

        def report(step: Step) -> None:
            what = "float from here" if step.kept else "taken back"
            search.detail(f"{step.layer.name}: outputs {step.score:.6f}, {what}")

        walk(mixes, search.cosines, self.min_layer_cos, report)
