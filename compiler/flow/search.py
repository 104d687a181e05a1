"""Which layers stay float: the search as a whole, for commands and Python alike."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from qdqc.calibration.batches import Digest
from qdqc.calibration.observed import plan_of
from qdqc.calibration.table import Table
from qdqc.calibration.table_check import check_digest, check_table
from qdqc.calibration.thresholds import DEFAULT, method_named
from qdqc.diagnostics import QdqcError, Severity, suggestion
from qdqc.flow.calibrate import Calibration, calibrate_module, header_of, tables_of
from qdqc.flow.effort import Effort
from qdqc.flow.listener import SILENT, Listener
from qdqc.flow.samples import DataSource, Given
from qdqc.flow.transform import transform
from qdqc.ir.graph import Module
from qdqc.quant.deployment import INT8, Deployment
from qdqc.quant.targets.target import target_named
from qdqc.runtime.comparison.choices import judged_values
from qdqc.runtime.sessions.session import Feeds
from qdqc.search.strategies.pareto_point import Point
from qdqc.search.strategies.sensitivity import SCREENED
from qdqc.search.strategies.strategy import Search, strategy_named
from qdqc.search.trials.journal import Journal
from qdqc.search.trials.kept import BUDGET
from qdqc.search.trials.mixed_models import MixedModels
from qdqc.search.trials.objective import Likeness, Metric, Objective, PostProcess
from qdqc.search.trials.trials import Trials, worst_samples
from qdqc.text.digest import module_digest
from qdqc.versions import version_of

__all__ = ["SearchRequest", "SensitiveLayers", "open_search", "outcome", "search_layers"]


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """What is searched, on which samples, and what models are judged by.

    Nodes that leave INT8 take the mode ``fp_type``. Models are judged on ``inference_num``
    samples of the source, the ``first`` ones or the ``worst``. Their values named in ``compared``,
    with weights that sum to 1 (None: ``judged_values`` alike), shall have a likeness of
    ``expected_cos`` to the float ones by ``benchmark_method``, behind ``post_process``; or a
    ``metric`` of all samples and their ``labels`` shall fall by no more than ``max_drop``.
    ``exact`` tries all methods on all samples. ``fingerprint`` says what else findings depend
    on: the contents of the user's files.
    """

    source: DataSource
    deployment: Deployment = INT8
    fp_type: str = "F32"
    inference_num: int = 30
    samples: Literal["first", "worst"] = "first"
    compared: Mapping[str, float] | None = None
    expected_cos: float = 0.99
    benchmark_method: str = "cos"
    post_process: PostProcess | None = None
    metric: Callable[[Mapping[str, Any], Any], Any] | None = None
    labels: Any = None
    max_drop: float = 0.01
    exact: bool = False
    effort: Effort = field(default_factory=Effort)
    fingerprint: Sequence[object] = ()

    def goal(self, ideal: float) -> float:
        """The score to be reached: the likeness, or the float model's metric less the drop."""
        return ideal - self.max_drop if self.metric is not None else self.expected_cos


@dataclass(frozen=True)
class SensitiveLayers:
    """What a search ended with.

    ``losses`` is what each layer loses by the strategy's measure, the worst first. With the layers
    of ``qtable`` float and the ranges of ``table`` the model scores ``score``, with none
    ``int8``; ``goal`` is what was asked. ``points`` are the models of a front.
    """

    losses: Mapping[str, float]
    qtable: Mapping[str, str]
    table: Table = field(repr=False)
    int8: float
    score: float
    goal: float
    points: tuple[Point, ...] = ()

    @property
    def reached(self) -> bool:
        """Whether the model with the layers of ``qtable`` float has the score that was asked."""
        return self.score >= self.goal


def search_layers(
    model: Any,
    dataset: Given,
    *,
    strategy: str = "smallest",
    expected_cos: float = 0.99,
    metric: Callable[[Mapping[str, Any], Any], float] | None = None,
    labels: Sequence[Any] | None = None,
    max_drop: float = 0.01,
    inference_num: int = 30,
    exact: bool = False,
    target: str = "ort-cpu",
    method: str = DEFAULT,
    symmetric: bool = False,
    input_shapes: Mapping[str, Sequence[int | str]] | None = None,
    listener: Listener = SILENT,
    **options: Any,
) -> SensitiveLayers:
    """The layers to leave float, for ``qdqc.quantize`` with the same arguments.

    ``model``, ``dataset``, ``target``, ``method``, ``symmetric`` and ``input_shapes`` are as
    there; ``qtable`` of the result goes there. ``strategy`` is the name of one, ``options`` are its
    own: the fewest layers by default. Outputs on the first ``inference_num`` samples shall have
    a mean cosine of ``expected_cos`` to the float ones; or ``metric(outputs, labels)`` shall fall
    by no more than ``max_drop``. No file is written. Raises QdqcError.
    """
    target_named(target)
    if "methods" not in options and strategy in ("smallest", "pareto"):
        options["methods"] = ()
    chosen = strategy_named(strategy, **options)
    module = transform(model, input_shapes=input_shapes, listener=listener).module
    given = dataset if isinstance(dataset, str | Path) else list(dataset)
    request = SearchRequest(
        source=DataSource(dataset=given),
        deployment=Deployment(target=target, symmetric=symmetric),
        inference_num=inference_num,
        expected_cos=expected_cos,
        metric=metric,
        labels=labels,
        max_drop=max_drop,
        exact=exact,
    )
    data = request.source.open(module.graph, listener, look=False)
    table = calibrate_module(module, data, Calibration(method=method), listener=listener).table
    search = open_search(module, table, request, listener=listener)
    search.run(chosen)
    return outcome(search, request.fp_type)


def outcome(search: Search, fp_type: str = "F32") -> SensitiveLayers:
    """What a search that has begun ends with, as it stands."""
    losses = dict(sorted(search.losses.items(), key=lambda row: -row[1]))
    mix = search.result
    return SensitiveLayers(
        losses=losses,
        qtable=dict.fromkeys(search.floats, fp_type),
        table=search.table,
        int8=search.int8 if search.int8 is not None else mix.score,
        score=mix.score,
        goal=search.goal,
        points=tuple(search.points),
    )


def open_search(
    module: Module, table: Table, request: SearchRequest, *, listener: Listener = SILENT
) -> Search:
    """All that a search needs, looked at before any work begins; a strategy then runs on it.

    Findings of an earlier run of the same search are taken up. Raises QdqcError for a table of
    another model, and for what does not fit together.
    """
    _check_table(module, table, listener)
    target_named(request.deployment.target)
    models = MixedModels(module, request.deployment, request.fp_type)
    objective = _objective(module, request)
    samples = _samples(models, table, request, listener)
    limit = request.effort.memory_limit // 3 if request.effort.memory_limit else BUDGET
    trials = Trials(
        models,
        table,
        samples,
        objective,
        hands=request.effort.hands(),
        budget=min(BUDGET, limit),
    )
    # A metric of the user's moves in steps, and says nothing on a few samples.
    screened = 0 if request.metric is not None or request.exact else SCREENED
    return Search(
        trials,
        table,
        request.goal(trials.ideal),
        _journal(module, table, samples, request, listener),
        lambda methods: _tables(module, table, methods, request, listener),
        screened,
        listener.stage,
        listener.note,
        listener.detail,
    )


def _check_table(module: Module, table: Table, listener: Listener) -> None:
    """Raises QdqcError where the table is another model's."""
    check_digest(table, module_digest(module), table.file)
    for diagnostic in check_table(table, plan_of(module.graph).names, table.file):
        if diagnostic.severity is Severity.ERROR:
            raise QdqcError.of(diagnostic)
        listener.warn(diagnostic)


def _objective(module: Module, request: SearchRequest) -> Objective:
    """What models are judged by. Raises QdqcError for names that do not fit."""
    weights = _weights(module, request.compared)
    if request.metric is not None:
        names, labels = tuple(weights), request.labels
        return Metric(names, request.metric, labels, request.post_process)
    if request.labels is not None:
        note = "give `metric`, or leave `labels` out"
        raise QdqcError("`labels` are for a metric", notes=[note])
    return Likeness(weights, request.benchmark_method, request.post_process)


def _weights(module: Module, compared: Mapping[str, float] | None) -> dict[str, float]:
    """The compared values: those that were named, or those that models are judged by."""
    if compared is None:
        outputs = judged_values(module)
        if not outputs:
            note = "name some with `global_compare_layers` of run_sensitive_layer"
            raise QdqcError("the model has no float outputs to compare", notes=[note])
        return {n: 1 / len(outputs) for n in outputs}
    for name in compared:
        value = module.value(name)
        if value is None or value.graph is None:
            hint = suggestion(name, module.value_names())
            raise QdqcError(f"there is no value '{name}' to compare{hint}")
    total = sum(compared.values())
    if abs(total - 1) > 1e-3:
        raise QdqcError(f"the weights of `global_compare_layers` sum to {total:g}, not to 1")
    return dict(compared)


def _samples(
    models: MixedModels, table: Table, request: SearchRequest, listener: Listener
) -> list[Feeds]:
    """The samples that models are judged on. Raises QdqcError where there are too few."""
    graph, wanted, labels = models.module.graph, request.inference_num, request.labels
    data = request.source.open(graph, listener, every=True)
    if request.samples == "first":
        samples: list[Feeds] = list(itertools.islice(data, wanted))
    elif labels is not None:
        note = "leave `samples` at first"
        raise QdqcError("labels belong to the first samples", notes=[note])
    else:
        every: list[Feeds] = list(data)
        names = list(_weights(models.module, request.compared))
        samples = [every[i] for i in worst_samples(models, table, every, names, wanted)]
    if not samples:
        note = "give `inference_num` above 0"
        raise QdqcError("there are no samples to search on", notes=[note])
    if labels is not None and len(labels) < len(samples):
        raise QdqcError(
            f"there are {len(labels)} labels for {len(samples)} samples",
            notes=["give one label a sample, in the order of the data"],
        )
    return samples


def _tables(
    module: Module,
    base: Table,
    methods: Sequence[str],
    request: SearchRequest,
    listener: Listener,
) -> dict[str, Table]:
    """The given table by its method's name, and one of each of the other methods.

    They leave the same padding out.
    """
    given, mask = base.header.get("method", "given"), base.header.get("mask", "")
    others = [m for m in dict.fromkeys(map(method_named, methods)) if m.spelling != given]
    if not others:
        return {given: base}
    header = header_of(module, base.header.get("model", ""), request.source.seed, mask)
    data = request.source.open(module.graph, listener, look=False)
    made = tables_of(
        module, data, others, header=header, mask=mask, effort=request.effort, listener=listener
    )
    return {given: base, **made}


def _journal(
    module: Module,
    table: Table,
    samples: Sequence[Feeds],
    request: SearchRequest,
    listener: Listener,
) -> Journal:
    """What an earlier run of the same search found, and a place for what this one finds."""
    folder = request.effort.journal_folder(listener)
    if folder is None:
        return Journal(None, "")
    digest = Digest()
    for sample in samples:
        digest.add(dict(sample))
    versions = [version_of(p) for p in ("qdqc", "onnxruntime", "numpy")]
    key: list[object] = [
        *(module_digest(module), table.digest, digest.text(), versions),
        *(request.deployment, request.fp_type, request.benchmark_method),
        *(request.compared, list(request.fingerprint)),
    ]
    journal = Journal(folder, repr(key))
    if journal.taken_up:
        listener.note(f"{journal.taken_up} findings of an earlier run are taken up")
    return journal
