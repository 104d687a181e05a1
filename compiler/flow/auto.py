"""The best model for a target, found without an expert: modes, methods and recipes by trial."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count as counter
from itertools import islice
from typing import Any

from qdqc.calibration.batches import Digest
from qdqc.calibration.kept_samples import kept_of
from qdqc.calibration.masking import masking_by
from qdqc.calibration.table import Table
from qdqc.data.dataset import Dataset
from qdqc.diagnostics import QdqcError
from qdqc.flow.calibrate import (
    NO_MASK,
    Calibration,
    calibrate_module,
    header_of,
    mask_of,
    tables_of,
)
from qdqc.flow.deploy import fitting_target
from qdqc.flow.effort import ALONE, Effort
from qdqc.flow.listener import SILENT, Listener
from qdqc.flow.samples import DataSource
from qdqc.ir.graph import Module
from qdqc.quant.deployment import INT8, Deployment
from qdqc.quant.lowering import has_quantized_activations
from qdqc.quant.targets.target import target_named
from qdqc.runtime.machine import processor
from qdqc.runtime.sessions.session import Feeds
from qdqc.search.auto.candidate import Candidate, Weights
from qdqc.search.auto.findings import Findings
from qdqc.search.auto.goal import goal_of
from qdqc.search.auto.judge import Judge, judged_by
from qdqc.search.auto.mode_search import ModeSearch
from qdqc.search.auto.plan import AutoPlan
from qdqc.search.trials.journal import Journal
from qdqc.search.trials.layers import Layers
from qdqc.search.trials.mixed_models import MixedModels
from qdqc.search.trials.objective import Metric
from qdqc.text.digest import module_digest
from qdqc.tuning.recipe import EVERY, MOST, is_judge
from qdqc.versions import version_of

__all__ = ["AutoRequest", "plan_auto"]

METHODS = ("mse", "max")
"""Threshold methods that are tried: one that clips, and one that does not."""

_JUDGED = 256 << 20
"""Bytes of held-back samples."""
_LOOKED_AT = 48
"""Samples of the calibration among which those are chosen that noise is measured on."""


@dataclass(frozen=True, kw_only=True)
class AutoRequest:
    """What is searched: the ``source`` of samples, the ``deployment`` but for its mode, a ``goal``.

    One sample in five is held back to judge by. The ``goal`` is ``25dB``, ``5ms``, the drop of a
    ``metric`` of held-back samples and their ``labels``, or empty for a balance of both.
    ``budget`` is in seconds, 0 for one by the number of layers. ``table`` gives the ranges, else
    ``METHODS`` do. ``mask`` is an input that is 0 for padding. Without ``recipes`` weights stay.
    ``fingerprint`` says what else findings depend on: the contents of the user's files.
    """

    source: DataSource
    deployment: Deployment = INT8
    goal: str = ""
    metric: Callable[[Mapping[str, Any], Any], Any] | None = None
    labels: Sequence[Any] | None = None
    budget: float = 0.0
    table: Table | None = None
    mask: str = ""
    recipes: Sequence[str] = ("best",)
    fingerprint: Sequence[object] = ()
    effort: Effort = field(default_factory=lambda: ALONE)


def plan_auto(module: Module, request: AutoRequest, *, listener: Listener = SILENT) -> AutoPlan:
    """Search the best deployment of a float module. Raises QdqcError.

    An interrupt ends the search with the best model so far, where there is one.
    """
    if request.labels is not None and request.metric is None:
        raise QdqcError("`labels` are for a metric", notes=["give `metric`, or leave them out"])
    if has_quantized_activations(module):
        note = "deploy it with a mode: INT8 requantizes what came in with scales"
        raise QdqcError(
            "the best model is searched for float ones, and this is quantized", notes=[note]
        )
    names = judged_by(module)
    if not names:
        raise QdqcError("the model has no float outputs to judge by", notes=["give a mode"])
    target = fitting_target(request.deployment.target, listener.warn)
    request = replace(request, deployment=replace(request.deployment, target=target))
    if target_named(target).runtime != "onnxruntime":
        listener.warn(
            f"times are those of onnxruntime on this machine, not of {target_named(target).runtime}"
        )
    # Labels belong to the samples in their order, of which then none are drawn.
    data = request.source.open(module.graph, listener, every=request.labels is not None)
    goal_of(request.goal, 0.0 if request.metric is not None else math.inf)
    search = _Search(module, request, data, listener)
    auto = search.auto(names)
    chosen = auto.run()
    return _plan(auto, chosen, request)


class _Search:
    """The samples of a search, and what it makes of them."""

    def __init__(
        self, module: Module, request: AutoRequest, data: Dataset, listener: Listener
    ) -> None:
        self.module, self.request, self.listener = module, request, listener
        self.deployment = replace(request.deployment, mode="INT8", leave_float=False)
        self.mask = mask_of(module, data, request.mask, listener)
        few = sum(1 for _ in islice(data, EVERY))  # streams do not know their length
        self.judges = _judges(few)
        self.judging = data.share(self.judges)
        self.training = data.share(lambda n: not self.judges(n)) if few > 1 else data
        if few == 1:
            listener.note("there is one sample: models are judged on what gave them their ranges")

    def auto(self, names: Sequence[str]) -> ModeSearch:
        request, listener = self.request, self.listener
        samples = _within(self.judging, MOST)
        self.noisy = _within(self.training, _LOOKED_AT)
        masking = masking_by(self.module.graph, self.mask) if self.mask else None
        judge = Judge(self.module, names, samples, self._metric(names, len(samples)), masking)
        goal = goal_of(request.goal, judge.ideal.score)
        models = MixedModels(self.module, self.deployment)
        layers = sum(1 for _ in self.module.graph.nodes())
        tables = self._tables()
        return ModeSearch(
            Weights(models, tables),
            judge,
            self.noisy,
            self._tuned,
            () if request.table is not None else request.recipes,
            _modes_of(self.module, request.deployment, next(iter(tables.values()))),
            goal,
            request.budget or _budget(layers),
            request.effort.hands(),
            Findings(self._journal(names, samples)),
            listener.stage,
            listener.note,
        )

    def _journal(self, names: Sequence[str], samples: Sequence[Feeds]) -> Journal:
        """What an earlier run of the same search found, on this machine."""
        request, listener = self.request, self.listener
        folder = request.effort.journal_folder(listener)
        if folder is None:
            return Journal(None, "")
        digest = Digest()
        for sample in (*samples, *self.noisy):
            digest.add(dict(sample))
        versions = [version_of(p) for p in ("qdqc", "onnxruntime", "numpy")]
        judged = [list(names), self.mask, list(request.fingerprint)]
        key = [module_digest(self.module), digest.text(), versions, processor(), self.deployment]
        journal = Journal(folder, repr(["auto", *key, *judged]))
        if journal.taken_up:
            listener.note(f"{journal.taken_up} findings of an earlier run are taken up")
        return journal

    def _metric(self, names: Sequence[str], count: int) -> Metric | None:
        """The metric of the user's on the held-back samples. Raises QdqcError for few labels."""
        request, labels = self.request, None
        if request.metric is None:
            return None
        if request.labels is not None:
            numbers = list(islice(filter(self.judges, counter()), count))
            if numbers[-1] >= len(request.labels):
                raise QdqcError(
                    f"there are {len(request.labels)} labels, and sample {numbers[-1] + 1} "
                    "is judged by its own",
                    notes=["give one label a sample, in the order of the data"],
                )
            labels = [request.labels[n] for n in numbers]
        return Metric(tuple(names), request.metric, labels)

    def _tables(self) -> dict[str, Table]:
        given = self.request.table
        if given is not None:
            return {given.header.get("method", "given"): given}
        mask, kept = self.mask, kept_of(self.training, self.module.graph, 1)
        tables = tables_of(
            self.module,
            self.training,
            METHODS,
            header=header_of(self.module, "", self.request.source.seed, mask),
            mask=mask,
            effort=self.request.effort,
            listener=self.listener,
        )
        for table in tables.values():
            table.keep(kept)
        return tables

    def _tuned(self, recipe: str, method: str) -> Weights:
        request = Calibration(
            method=method,
            recipe=recipe,
            mask=self.mask or NO_MASK,
            target=self.request.deployment.target,
        )
        tuned = calibrate_module(
            self.module, self.training, request, effort=self.request.effort, listener=self.listener
        )
        models = MixedModels(tuned.module, self.deployment)
        return Weights(models, {method: tuned.table}, recipe)


def _modes_of(module: Module, deployment: Deployment, table: Table) -> dict[str, str]:
    """The modes that plain INT8 gives to nodes, where the target's costs leave any float."""
    plain = replace(deployment, mode="INT8", leave_float=True)
    layers = Layers(MixedModels(module, plain), table)
    nodes = layers.planned.graph.nodes()
    return {layers.owner(node): "F32" for node in nodes if node.mode == "F32"}


def _judges(count: int) -> Callable[[int], bool]:
    """Which of so many samples are held back: as recipes have it, or the last of a few."""
    return is_judge if count >= EVERY else lambda number: number == count - 1


def _budget(layers: int) -> float:
    """Seconds for a model of so many layers: half a minute, or two minutes for hundreds."""
    return min(120.0, 25.0 + 0.45 * layers)


def _within(samples: Iterable[Feeds], count: int) -> list[Feeds]:
    """The first samples, as many as wanted and as memory allows; one at least."""
    taken: list[Feeds] = []
    size = 0
    for sample in islice(samples, count):
        size += sum(getattr(array, "nbytes", 0) for array in sample.values())
        if taken and size > _JUDGED:
            break
        taken.append(sample)
    if not taken:
        raise QdqcError("there are no samples to judge by", notes=["give two samples at least"])
    return taken


def _plan(auto: ModeSearch, chosen: Candidate, request: AutoRequest) -> AutoPlan:
    deployment = replace(request.deployment, mode="F32" if chosen.is_float else "INT8")
    modes = {"*": "INT8", **chosen.modes}  # all are named: no mode is left to a default
    return AutoPlan(
        chosen.weights.models.module,
        deployment,
        None if chosen.is_float else chosen.table,
        None if chosen.is_float else modes,
        chosen,
        auto.exact,
        tuple(auto.tried),
        auto.goal.text(),
        auto.reasons(chosen),
        auto.judge.samples,
        auto.costs.alone() if auto.costs is not None else {},
        auto.stopped,
    )
