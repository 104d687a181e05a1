"""Runs trials: a layer's variants on all samples, judged against the float model."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qdqc.calibration.table import Table
from qdqc.diagnostics import QdqcError
from qdqc.ir.core import Node
from qdqc.ir.graph import Module
from qdqc.ir.types import Range
from qdqc.onnx_io.opsets import choose_opset
from qdqc.runtime.sessions.session import Feeds, Runner
from qdqc.runtime.sessions.shared_weights import Weights
from qdqc.search.trials.cut import Cuts
from qdqc.search.trials.head import Setup, Variant
from qdqc.search.trials.kept import BUDGET, Kept
from qdqc.search.trials.layers import Layer, Layers
from qdqc.search.trials.mixed_models import MixedModels
from qdqc.search.trials.objective import Likeness, Objective, Outputs
from qdqc.search.trials.spread import ALONE, Hands
from qdqc.search.trials.trial import Trial

__all__ = ["Loss", "Trials", "compared_values", "worst_samples"]


_ROWS = 4
"""Samples and variants that go through a tail at once: more leave the processor's caches."""


@dataclass(frozen=True)
class Loss:
    """What a variant of a layer takes from the float model's score, on so many samples."""

    loss: float
    samples: int


class Trials:
    """A float module, its samples, and what deployments of it are judged by.

    ``table`` gives the values that are not searched their ranges. ``hands`` share the samples,
    each of which runs on one thread, so that their number changes no bit. Raises QdqcError without
    samples, and where onnxruntime refuses the module.
    """

    def __init__(
        self,
        models: MixedModels,
        table: Table,
        samples: Sequence[Feeds],
        objective: Objective,
        *,
        hands: Hands = ALONE,
        budget: int = BUDGET,
    ) -> None:
        if not samples:
            note = "give `inference_num` above 0"
            raise QdqcError("there are no samples to search on", notes=[note])
        self.models = models
        self.layers = Layers(models, table)
        self.objective = objective.part(range(len(samples)))
        self.weights = Weights()
        opset = choose_opset(models.lowered(table), None)
        cuts = Cuts(self.layers.planned, objective.names)
        self._setup = Setup(self.layers, cuts, self.weights, opset)
        self._apart: set[Node[Any]] = set()
        self._hands, self._budget = hands, budget
        self._take(samples, self.layers.every)

    def of(self, layers: Sequence[Layer]) -> Trials:
        """The same trials of some layers alone, whose values are then all that is kept."""
        out = copy.copy(self)
        out._keep(layers)
        return out

    def on(self, places: Sequence[int]) -> Trials:
        """The same trials on the samples of these places alone."""
        out = copy.copy(self)
        out.objective = self.objective.part(places)
        out._take([self.samples[place] for place in places], self.layers.every)
        return out

    def _take(self, samples: Sequence[Feeds], layers: Sequence[Layer]) -> None:
        if not samples:
            note = "give `inference_num` above 0"
            raise QdqcError("there are no samples to search on", notes=[note])
        self.samples = samples
        shapes = {tuple(sorted((n, np.shape(a)) for n, a in s.items())) for s in samples}
        self._alike = len(shapes) == 1
        self.exact = self.outputs_of(None)
        self.ideal = self.objective.ideal(self.exact)
        self._keep(layers)

    def _keep(self, layers: Sequence[Layer]) -> None:
        setup = self._setup
        self._number = {layer.key: n for n, layer in enumerate(layers)}
        self._kept = Kept(
            self.layers.planned,
            self.samples,
            [setup.cuts.needs(layer) for layer in layers],
            weights=setup.weights,
            opset=setup.opset,
            hands=self._hands,
            budget=self._budget,
        )

    def outputs_of(
        self, table: Table | None, floats: frozenset[str] = frozenset()
    ) -> list[Outputs]:
        """The compared values of the deployed model on all samples; of the float one for None."""
        module = self.models.module
        if table is not None:
            module = self.models.lowered(table, floats)
        names, setup = self.objective.names, self._setup
        return compared_values(module, names, self.samples, self._hands, self.weights, setup.opset)

    def score_of(self, table: Table, floats: frozenset[str] = frozenset()) -> float:
        """The score of the deployed model with these nodes left float."""
        return self.objective.score(self.outputs_of(table, floats), self.exact)

    def sample_losses(self, table: Table) -> list[float]:
        """What the deployed model loses on each sample by itself."""
        outputs = self.outputs_of(table)
        losses: list[float] = []
        for place, (ours, exact) in enumerate(zip(outputs, self.exact, strict=True)):
            alone = self.objective.part([place])
            losses.append(alone.ideal([exact]) - alone.score([ours], [exact]))
        return losses

    def losses(
        self,
        layer: Layer,
        variants: Sequence[Variant],
        ranges: Mapping[str, Range],
        screened: int = 0,
    ) -> list[Loss]:
        """What each variant of a layer takes from the float model's score.

        With some samples ``screened``, all variants are tried on these, and the one that loses
        least there on all samples: its loss is the same as without.
        """
        trial, count = Trial.of_variants(self._setup, layer, variants, ranges), len(self.samples)
        every = range(trial.count)
        if trial.count == 1 or not 0 < screened < count:
            return self._judged(self._run(trial, every, range(count)))
        few = self._run(trial, every, range(screened))
        losses = self._judged(few)
        best = min(every, key=lambda k: losses[k].loss)
        (rest,) = self._run(trial, [best], range(screened, count))
        (losses[best],) = self._judged([[*few[best], *rest]])
        return losses

    def _judged(self, by_variant: Sequence[Sequence[Outputs]]) -> list[Loss]:
        """The losses of variants by their outputs on the first samples."""
        count = len(by_variant[0])
        exact, objective = self.exact[:count], self.objective.part(range(count))
        ideal = objective.ideal(exact)
        return [Loss(ideal - objective.score(outputs, exact), count) for outputs in by_variant]

    def variant_outputs(
        self, layer: Layer, variants: Sequence[Variant], ranges: Mapping[str, Range]
    ) -> list[list[Outputs]]:
        """The compared values of each variant, sample by sample."""
        trial = Trial.of_variants(self._setup, layer, variants, ranges)
        return self._run(trial, range(trial.count), range(len(self.samples)))

    def part_outputs(
        self, layer: Layer, quants: Variant, ranges: Mapping[str, Range]
    ) -> dict[str, list[Outputs]]:
        """The compared values with the layer's ``values`` rounded alone, and its ``weights``."""
        kinds, trial = Trial.of_parts(self._setup, layer, quants, ranges)
        if trial is None:
            return {}
        outputs = self._run(trial, range(trial.count), range(len(self.samples)))
        return dict(zip(kinds, outputs, strict=True))

    def _run(
        self, trial: Trial, variants: Sequence[int], places: Sequence[int]
    ) -> list[list[Outputs]]:
        """The compared values of variants on the samples of these places."""
        kept = self._kept.of(self._number[trial.layer.key])
        stacked = self._can_stack(trial, kept[:2])
        size = max(1, _ROWS // len(variants)) if stacked else 1
        parts = [places[i : i + size] for i in range(0, len(places), size)]

        def run(part: Sequence[int]) -> list[Outputs]:
            by_sample = trial.run([kept[place] for place in part], variants, stacked=stacked)
            return [outputs for sample in by_sample for outputs in sample]

        every = [outputs for part in self._hands.each(run, parts) for outputs in part]
        return [every[k :: len(variants)] for k in range(len(variants))]

    def _can_stack(self, trial: Trial, samples: Sequence[Mapping[str, Any]]) -> bool:
        """Whether rows may lie behind one another; nodes that allow it are tried once."""
        if not self._alike or trial.count * len(samples) < 2:
            return False
        if trial.tail_nodes <= self._apart:
            return True
        fits = trial.can_stack(samples)
        if fits:
            self._apart |= trial.tail_nodes
        return fits


def compared_values(
    module: Module,
    names: Sequence[str],
    samples: Sequence[Feeds],
    hands: Hands = ALONE,
    weights: Weights | None = None,
    opset: int | None = None,
) -> list[Outputs]:
    """The values of these names in a module of any stage, sample by sample."""
    own = {v.name for v in module.graph.outputs}
    taps = [n for n in names if n not in own]
    runner = Runner(module, taps, threads=1, weights=weights, opset=opset)

    def run(feeds: Feeds) -> list[Outputs]:
        values = runner.run(feeds)
        return [{n: values[n] for n in names}]

    return [outputs for (outputs,) in hands.each(run, samples)]


def worst_samples(
    models: MixedModels, table: Table, samples: Sequence[Feeds], names: Sequence[str], count: int
) -> list[int]:
    """The places of the samples on which float and INT8 are least alike, in their order."""
    like = Likeness(dict.fromkeys(names, 1 / max(1, len(names))))
    exact = compared_values(models.module, names, samples)
    quantized = compared_values(models.lowered(table), names, samples)
    scores = [like.score([f], [e]) for f, e in zip(quantized, exact, strict=True)]
    return sorted(sorted(range(len(scores)), key=scores.__getitem__)[:count])
