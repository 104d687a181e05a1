"""How much each layer loses in integers, and which method suits the ranges of its values best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from qdqc.calibration.table import Table
from qdqc.ir.core import Constant
from qdqc.ir.types import Quant, Range
from qdqc.search.strategies.deviations import Parts, samples_within
from qdqc.search.trials.journal import Journal
from qdqc.search.trials.layers import Layer, ranges_of
from qdqc.search.trials.trials import Loss, Trials

__all__ = ["DEFAULT_METHODS", "SCREENED", "Judged", "Progress", "Sensitivity"]

DEFAULT_METHODS = ("kl", "max", "percentile9999")
"""Methods whose ranges are tried beside those of the given table."""

SCREENED = 4
"""Samples on which all methods of a layer are tried, of those that rank the layers."""
RANKED = 16
"""Samples that layers are ranked on, by their best method, before the worst get all."""
_REPEATED = 14
"""Worst layers that are tried by all methods on all samples: ten that people see, and some."""

Progress: TypeAlias = Callable[[int, int, str], object]
"""Hears how many layers are done, of how many, and what is the worst so far."""


@dataclass(frozen=True)
class Judged:
    """What became of a layer: its loss by method.

    Methods that were left behind on a few samples have their loss on these.
    """

    layer: Layer
    tried: Mapping[str, Loss]

    @property
    def samples(self) -> int:
        """The samples that the best method was tried on."""
        return max(loss.samples for loss in self.tried.values())

    @property
    def method(self) -> str:
        """The method with the least loss on all samples; the first of them at a tie."""
        whole = [m for m, loss in self.tried.items() if loss.samples == self.samples]
        return min(whole, key=lambda m: self.tried[m].loss)

    @property
    def loss(self) -> float:
        return self.tried[self.method].loss


@dataclass
class Sensitivity:
    """The search of the layers; what it has found so far can be looked at at any time.

    For each layer in graph order, with all others float, each method's range is tried on its
    values, beside its weights, and with the best ranges so far on what it reads. Methods that
    give the same scales are tried once. The first of ``tables`` is the base, which gives values
    that are not searched their ranges, and wins a tie.
    """

    trials: Trials
    tables: Mapping[str, Table]
    journal: Journal
    progress: Progress = lambda done, total, worst: None
    judged: dict[str, Judged] = field(default_factory=dict)

    def __post_init__(self) -> None:
        models = self.trials.models
        self._ranges = {m: ranges_of(models.planned(t)) for m, t in self.tables.items()}

    @property
    def base(self) -> str:
        return next(iter(self.tables))

    def run(self, *, screened: int = SCREENED, ranked: int = RANKED) -> None:
        """Choose each layer's method on ``screened`` samples, and try it on ``ranked`` ones.

        The worst layers are tried by all methods on all samples then; where ``screened`` is 0,
        all layers are, and nothing else is done. Raises QdqcError.
        """
        every, count = self.trials.layers.every, len(self.trials.samples)
        if not 0 < screened < count:
            self._try(self.trials, every, 0, len(every))
            return
        total = len(every) + min(_REPEATED, len(self.trials.layers.integer))
        self._try(self.trials.on(range(min(ranked, count))), every, screened, total)
        worst = {j.layer.key for j in self.ranking()[:_REPEATED]}
        again = [layer for layer in every if layer.key in worst]
        self._try(self.trials.of(again), again, 0, total)

    def ranking(self) -> list[Judged]:
        """The layers that run in integers, the worst first."""
        keys = (layer.key for layer in self.trials.layers.integer)
        judged = [self.judged[key] for key in keys if key in self.judged]
        return sorted(judged, key=lambda j: -j.loss)

    def table(self) -> Table:
        """The base table with the rows of each layer's values by the layer's best method."""
        base = self.tables[self.base]
        rows = dict(base.rows)
        for judged in self.judged.values():
            for value in judged.layer.ranged:
                row = self.tables[judged.method].rows.get(value.name)
                if row is not None and value.name in rows:
                    rows[value.name] = row
        methods = ", ".join(self.tables)
        header = {**base.header, "method": "best of trials", "methods": methods}
        return replace(base, rows=rows, header=header, places={})

    def chosen(self) -> dict[str, Range]:
        """The planned range of each value, by the best method so far."""
        ranges = dict(self._ranges[self.base])
        for judged in self.judged.values():
            ranges |= self._by(judged.layer, judged.method)
        return ranges

    def parts(self) -> Parts:
        """What each rounding adds by the best ranges so far, still to be measured on samples."""
        wanted = min(SCREENED, len(self.trials.samples))
        some = self.trials.on(range(samples_within(self.trials, wanted)))
        return Parts(some, self.chosen())

    def variants(self, layer: Layer) -> dict[str, tuple[Quant, ...]]:
        """The scales that each method gives to the values of a layer."""
        layers = self.trials.layers
        return {
            m: tuple(layers.quant(layer, r) for r in self._by(layer, m).values())
            for m in self.tables
        }

    def _by(self, layer: Layer, method: str) -> dict[str, Range]:
        """The ranges of a layer's values by a method, or by the base where it has none."""
        own, base = self._ranges[method], self._ranges[self.base]
        return {v.name: own.get(v.name, base[v.name]) for v in layer.ranged}

    def _try(self, trials: Trials, layers: Sequence[Layer], screened: int, total: int) -> None:
        """Judge layers, which are the last of so many where these are tried once more."""
        done = total - len(layers) if self.judged else 0
        for number, layer in enumerate(layers, done + 1):
            self.judged[layer.key] = self._judge(trials, layer, screened)
            worst = self.ranking()[:1]
            self.progress(number, total, worst[0].layer.name if worst else "")

    def _judge(self, trials: Trials, layer: Layer, screened: int) -> Judged:
        variants = self.variants(layer)
        distinct = list(dict.fromkeys(variants.values()))
        ranges = _read_by(layer, self.chosen())
        entry = [
            "losses",
            layer.key,
            [len(trials.samples), screened],
            [[[float(q.scale), int(q.zero_point)] for q in v] for v in distinct],
            {n: [r.min, r.max, r.threshold] for n, r in ranges.items()},
        ]
        losses = self.journal.get(entry, lambda noted: _losses(noted, len(distinct)))
        if losses is None:
            losses = trials.losses(layer, distinct, ranges, screened)
            self.journal.put(entry, [[tried.loss, tried.samples] for tried in losses])
        by = dict(zip(distinct, losses, strict=True))
        return Judged(layer, {m: by[v] for m, v in variants.items()})


def _losses(noted: Any, count: int) -> list[Loss]:
    """So many losses of plain data. Raises TypeError and ValueError."""
    if len(noted) != count:
        raise ValueError(f"{len(noted)} losses where {count} belong")
    return [Loss(float(loss), int(samples)) for loss, samples in noted]


def _read_by(layer: Layer, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """The ranges of what the node of an integer layer reads."""
    if layer.node is None or not layer.integer:
        return {}
    operands = (v for v in layer.node.present_operands if not isinstance(v, Constant))
    return {v.name: ranges[v.name] for v in operands if v.name in ranges}
