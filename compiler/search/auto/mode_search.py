"""The best model for a goal: modes by node, methods and recipes, tried on the real model.

A few whole models come first, then what nodes take in each mode on this machine. Where the model
is not near enough, each rounding's noise is measured, and placements are cut at rising prices of
noise. All that comes near is run: predictions only say what to try.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from qdqc.diagnostics import QdqcError
from qdqc.ops import (
    CASTS,
    LSTM,
    DynamicQuantizeLinear,
    DynamicQuantizeLSTM,
    Gemm,
    MatMul,
)
from qdqc.quant.refusals import dynamic_refusal
from qdqc.quant.targets.target import target_named
from qdqc.runtime.sessions.session import Feeds
from qdqc.search.auto.candidate import Candidate, Weights
from qdqc.search.auto.findings import Findings, floats_of, times_of
from qdqc.search.auto.goal import BALANCED, Goal
from qdqc.search.auto.judge import Judge, Quality
from qdqc.search.auto.noise import mode_noise, rounding_noise, shares_below
from qdqc.search.auto.placements import Costs, placements, slower_islands
from qdqc.search.costs.mode_times import measure_times
from qdqc.search.costs.node_costs import layer_names, layer_times, seconds_of
from qdqc.search.strategies.strategy import Stage
from qdqc.search.trials.journal import Journal
from qdqc.search.trials.layers import Layers
from qdqc.search.trials.objective import Likeness
from qdqc.search.trials.spread import ALONE, Hands
from qdqc.search.trials.trials import Trials

__all__ = ["ModeSearch"]

_NEAR = 30.0
"""Decibels from which on weights need no tuning."""
_SHARE = 0.5
"""Of the budget, that the noise of roundings may take."""
_NOISY = 8
"""Samples at most that noise is measured on."""
_TIMED = 6
"""Candidates that are timed beside one another in the end."""
_TIMING, _LASTS, _REPEATS = 4.0, 0.003, 50
"""Seconds of all timing, of a measurement at least, and the runs in a row that make it one."""
_ROUNDS = 3
"""Placements by cost that are looked at, each with what the one before showed."""
_PRODUCTS = 48
"""Products up to which each is tried alone in another mode."""

_LEVEL = 1.0
"""Decibels within which two qualities are one."""

_QUANTIZED = (*CASTS, DynamicQuantizeLinear, DynamicQuantizeLSTM)
"""Ops of a lowered module of which some node is not float."""

_Tune = Callable[[str, str], Weights]


@dataclass
class ModeSearch:
    """A search, and what it has found at any time.

    ``base`` is the float module with tables by method, ``tune`` gives that of a recipe and a
    method. ``judge`` holds samples that nothing is chosen by, ``samples`` are the others.
    ``by_target`` are the modes that plain INT8 would have.
    """

    base: Weights
    judge: Judge
    samples: Sequence[Feeds]
    tune: _Tune
    recipes: Sequence[str] = ("best",)
    by_target: Mapping[str, str] = field(default_factory=dict[str, str])
    goal: Goal = BALANCED
    budget: float = 60.0
    hands: Hands = ALONE
    findings: Findings = field(default_factory=lambda: Findings(Journal(None, "")))
    stage: Stage = lambda stage, unit: lambda done, total, note: None
    note: Callable[[str], object] = lambda _: None
    tried: list[Candidate] = field(default_factory=list[Candidate])
    costs: Costs | None = None
    stopped: bool = False

    def __post_init__(self) -> None:
        self._until = time.monotonic() + self.budget
        self._decided: list[Candidate] = []
        self._seen: dict[tuple[int, str, tuple[tuple[str, str], ...]], Candidate] = {}

    @property
    def exact(self) -> Candidate:
        """The float model, which is always one to choose."""
        nodes = self.base.models.module.graph.nodes()
        modes = {n.name: "F32" for n in nodes}
        method = next(iter(self.base.tables))
        seconds = self.judge.seconds
        return Candidate("float", self.base, method, modes, self.judge.ideal, seconds, True)

    @property
    def best(self) -> Candidate:
        """The best candidate so far; of equal ones the first."""
        return min((*(self._decided or self.tried), self.exact), key=self._worth)

    def run(self) -> Candidate:
        """Search; an interrupt ends it with the best so far. Raises QdqcError."""
        report = self.stage("auto", "model")
        try:
            self._whole(report)
            self._mixed(report)
            self._tuned(report)
            self._timed()
        except KeyboardInterrupt:
            if not self.tried:
                raise
            self.stopped = True
        return self.best

    def _worth(self, candidate: Candidate) -> tuple[int, float]:
        return self.goal.worth(candidate.quality, candidate.seconds, self.judge.seconds)

    def _within(self) -> bool:
        return time.monotonic() < self._until

    def _try(
        self,
        label: str,
        weights: Weights,
        method: str,
        modes: Mapping[str, str],
        report: Callable[[int, int, str], object],
    ) -> Candidate:
        """Deploy a model, run it on the held-back samples and time it; once."""
        key = id(weights), method, tuple(sorted(modes.items()))
        if key not in self._seen:
            entry = ["model", weights.digests[method], sorted(modes.items())]

            def judged() -> list[float]:
                lowered = weights.models.lowered(weights.tables[method], modes)
                quality, seconds = self.judge.judged(lowered)
                is_float = not any(isinstance(n.op, _QUANTIZED) for n in lowered.walk())
                return [quality.sqnr, quality.score, quality.sure, seconds, is_float]

            sqnr, score, sure, seconds, is_float = self.findings.of(entry, _numbers, judged)
            quality = Quality(sqnr, score, sure)
            candidate = Candidate(label, weights, method, modes, quality, seconds, bool(is_float))
            self._seen[key] = candidate
            self.tried.append(candidate)
            report(len(self.tried), 0, f"{self.best.quality.sqnr:.1f} dB")
        return self._seen[key]

    def _whole(self, report: Callable[[int, int, str], object]) -> None:
        """The methods in INT8, and products in modes of their own."""
        for method in self.base.tables:
            self._try("INT8", self.base, method, {}, report)
        method = self._method()
        if self.by_target:
            self._try("by the target's costs", self.base, method, self.by_target, report)
        for mode, names in self._products().items():
            self._try(f"{mode} products", self.base, method, dict.fromkeys(names, mode), report)

    def _method(self) -> str:
        """The method whose INT8 model is nearest to float."""
        tried = (c for c in self.tried if c.weights is self.base and not c.modes)
        return max(tried, key=lambda c: c.quality.score).method

    def _products(self) -> dict[str, list[str]]:
        """Products that a mode of its own has a kernel for, by mode."""
        able = [n for n in self.base.models.module.walk() if isinstance(n.op, MatMul | Gemm | LSTM)]
        target = target_named(self.base.models.deployment.target)
        dynamic = [n.name for n in able if dynamic_refusal(n, target) is None]
        stored = [n.name for n in able if n.name in dynamic and isinstance(n.op, MatMul)]
        return {mode: names for mode, names in (("DYN8", dynamic), ("W8", stored)) if names}

    def _mixed(self, report: Callable[[int, int, str], object]) -> None:
        """Placements by cost alone, then at rising prices of noise."""
        method = self._method()
        costs = self._measured(method)
        if costs is None:
            return
        for _ in range(_ROUNDS):
            self.costs = costs
            first = self._try("by cost", self.base, method, costs.best(0.0), report)
            slow = self._slower(costs, method, first.modes)
            if not slow or first.is_float:
                break
            costs = replace(costs, slower={**costs.slower, **slow})
        quantized = [c.quality.sure for c in self.tried if not c.is_float]
        if max(quantized, default=-math.inf) >= self.goal.enough:
            return
        self.costs = costs = self._with_noise(costs, method)
        for modes in placements(costs, self.judge.seconds):
            if self._within():
                self._try("by cost and noise", self.base, method, modes, report)
        best = self.best
        for other in self.base.tables:
            if self._within() and not best.is_float:
                self._try(best.label, self.base, other, best.modes, report)

    def _measured(self, method: str) -> Costs | None:
        """The costs of nodes; None where the modes can't be profiled."""
        models, table = self.base.models, self.base.tables[method]
        layers = Layers(models, table)
        products, feeds = self._products(), self.judge.samples[0]
        entry = ["times", self.base.digests[method], products]
        seconds = self.judge.seconds
        try:
            times = self.findings.of(
                entry,
                times_of,
                lambda: measure_times(models, layers, table, feeds, products, seconds),
            )
        except QdqcError as error:
            self.note(f"nodes can't be timed: {error}")
            return None
        modes = {mode: dict.fromkeys(names, 0.0) for mode, names in products.items()}
        return Costs(layers, times, {}, modes)

    def _slower(self, costs: Costs, method: str, modes: Mapping[str, str]) -> dict[str, float]:
        """Seconds by which float islands are slower than they were said to be, shared by node.

        What nodes take depends on what stands beside them, which shows in the mixed model alone.
        """
        models, table = self.base.models, self.base.tables[method]

        def measured() -> dict[str, float]:
            modules = {"INT8": models.lowered(table), "mixed": models.lowered(table, modes)}
            feeds, names = self.judge.samples[0], layer_names(models.module)
            times = layer_times(modules, feeds, names, costs.times.runs)
            return slower_islands(models.module.graph, costs, modes, times["INT8"], times["mixed"])

        entry = ["slower", self.base.digests[method], sorted(modes.items())]
        return self.findings.of(entry, floats_of, measured)

    def _with_noise(self, costs: Costs, method: str) -> Costs:
        """The costs with the noise of each rounding, as long as its share of the budget lasts."""
        start, most = time.monotonic(), self.budget * _SHARE

        def within() -> bool:
            return self._within() and time.monotonic() - start < most

        models, table = self.base.models, self.base.tables[method]
        digest = self.base.digests[method]

        @cache  # not made where all was found before
        def judge() -> Judge:
            samples = self._noisy(method, len(costs.layers.every), most)
            return Judge(models.module, self.judge.names, samples, masking=self.judge.masking)

        def roundings() -> dict[str, float]:
            like = Likeness(dict.fromkeys(self.judge.names, 1 / len(self.judge.names)), "snr")
            trials = Trials(models, table, judge().samples, like, hands=self.hands)
            return rounding_noise(trials, judge(), within, self.stage("noise", "layer"))

        rounding = self.findings.of(["noise", digest], floats_of, roundings, whole=within)
        modes: dict[str, Mapping[str, float]] = {}
        for mode, names in self._products().items():
            modes[mode] = self.findings.of(
                ["noise", digest, mode, names],
                floats_of,
                lambda mode=mode, names=names: self._mode_noise(
                    judge(), method, names, mode, within
                ),
                whole=within,
            )
        noisy = replace(costs, rounding=rounding, modes=modes)
        below = shares_below(models.module, table, noisy.noisy(), self.judge.samples[0])
        return replace(noisy, below=below)

    def _mode_noise(
        self,
        judge: Judge,
        method: str,
        names: Sequence[str],
        mode: str,
        within: Callable[[], bool],
    ) -> dict[str, float]:
        models, table = self.base.models, self.base.tables[method]
        if len(names) <= _PRODUCTS:
            return mode_noise(models, table, judge, names, mode, within)
        floats = {n.name: "F32" for n in models.module.graph.nodes()}
        quality, _ = judge.judged(models.lowered(table, floats | dict.fromkeys(names, mode)))
        return dict.fromkeys(names, 10 ** (-quality.sqnr / 10) / len(names))

    def _noisy(self, method: str, layers: int, seconds: float) -> list[Feeds]:
        """The samples of the calibration that INT8 changes most: as many as there is time for."""
        count = int(seconds / 2 / max(1e-9, layers * self.judge.seconds))
        count = max(1, min(_NOISY, count, len(self.samples)))
        looked_at = list(self.samples[: 4 * count])
        models = self.base.models
        judge = Judge(models.module, self.judge.names, looked_at, masking=self.judge.masking)
        losses = judge.losses(models.lowered(self.base.tables[method]))
        worst = sorted(range(len(losses)), key=lambda place: -losses[place])[:count]
        return [looked_at[place] for place in sorted(worst)]

    def _tuned(self, report: Callable[[int, int, str], object]) -> None:
        """The best modes, and those of its neighbours, on weights that recipes tuned."""
        quantized = [c for c in self.tried if not c.is_float]
        best = min(quantized, key=self._worth, default=self.exact)
        if best.quality.sure >= min(_NEAR, self.goal.enough):
            return
        for recipe in self.recipes:
            if not self._within():
                return
            ways = [("INT8", {}), *((c.label, c.modes) for c in self._leading(_TIMED))]
            if self.costs is not None:
                ways.insert(1, ("by cost", self.costs.best(0.0)))
            weights = self.tune(recipe, best.method)
            for label, modes in ways:
                own = weights.translated(modes, self.base)
                self._try(label, weights, best.method, own, report)

    def _leading(self, count: int) -> list[Candidate]:
        """The best candidates that are not float, each of another quality, the best first.

        Times of single models are rough: candidates of one quality would crowd out all others.
        """
        chosen: dict[object, Candidate] = {}
        for candidate in sorted((c for c in self.tried if not c.is_float), key=self._worth):
            chosen.setdefault(_level(candidate.quality), candidate)
        return list(chosen.values())[:count]

    def _timed(self) -> None:
        """Time the best candidates and the float model beside one another, in turns."""
        leading = self._leading(_TIMED)
        modules = {
            str(n): c.weights.models.lowered(c.table, c.modes) for n, c in enumerate(leading)
        }
        modules["float"] = self.base.models.module
        each = max(1e-9, self.judge.seconds)
        repeats = max(1, min(_REPEATS, int(_LASTS / each)))
        rounds = max(5, min(30, int(_TIMING / (each * repeats * len(modules)))))
        entry = ["timed", [[c.weights.digests[c.method], sorted(c.modes.items())] for c in leading]]
        seconds = self.findings.of(
            entry,
            floats_of,
            lambda: seconds_of(modules, self.judge.samples[0], rounds, repeats),
        )
        self.judge.seconds = seconds["float"]
        timed = {id(c): replace(c, seconds=seconds[str(n)]) for n, c in enumerate(leading)}
        self.tried = [timed.get(id(c), c) for c in self.tried]
        self._decided = list(timed.values())

    def reasons(self, chosen: Candidate) -> dict[str, str]:
        """Why nodes of the chosen model are not INT8, by name, as far as it was measured."""
        costs = self.costs
        if costs is None:
            return {}
        names = chosen.weights.translated({n: n for n in self.exact.modes}, self.base)
        sources = {own: name for name, own in names.items()}
        return {n: costs.reason(sources.get(n, n), mode) for n, mode in chosen.modes.items()}


def _numbers(kept: Any) -> list[float]:
    """What ``_try`` keeps of a model. Raises TypeError or ValueError for anything else."""
    sqnr, score, sure, seconds, is_float = map(float, kept)
    return [sqnr, score, sure, seconds, is_float]


def _level(quality: Quality) -> float:
    return round(quality.sure / _LEVEL) if math.isfinite(quality.sure) else quality.sure
