"""From a float module and samples to the calibration table of its values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qdqc.calibration.found_mask import found_mask, shows_padding
from qdqc.calibration.kept_samples import KEPT, kept_of
from qdqc.calibration.masking import masking_by
from qdqc.calibration.methods.method import METHODS, Method
from qdqc.calibration.outliers import Outlier, outlier_driven
from qdqc.calibration.statistics import Collector
from qdqc.calibration.table import IMAGES, Table
from qdqc.calibration.tables import calibrate as tables_by_methods
from qdqc.calibration.thresholds import DEFAULT, method_named
from qdqc.data.dataset import Dataset, open_list
from qdqc.diagnostics import QdqcError
from qdqc.flow.effort import ALONE, Effort
from qdqc.flow.listener import SILENT, Listener
from qdqc.flow.samples import DataSource, Given, images_text
from qdqc.ir.graph import Module
from qdqc.quant.finite import odd_weights
from qdqc.runtime.sessions.open_taps import open_taps_of
from qdqc.text.digest import module_digest
from qdqc.versions import own_version, version_of

if TYPE_CHECKING:
    from qdqc.search.strategies.threshold import ThresholdScores
    from qdqc.tuning.recipe import Tuned

__all__ = [
    "BEST_OF",
    "NO_MASK",
    "Calibrated",
    "Calibration",
    "calibrate",
    "calibrate_module",
    "header_of",
    "mask_of",
    "tables_of",
]

BEST_OF = "best_of"
"""The method that takes, for each value, the best of all methods where the value is read."""

_LOCAL_SAMPLES = 5
"""Samples on which best_of judges when no number is given."""

NO_MASK = "none"
"""In place of an input: nothing is masked."""

_LIBRARIES = ("onnxruntime", "numpy")
"""What a table's numbers come from beside this tool."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How ranges are chosen.

    ``method`` is a threshold method or ``best_of``, ``options`` are set where a method has them.
    ``searched`` are methods of which the one is
    taken whose deployed model is nearest to float on ``inference_num`` samples. With ``tune_num``
    samples, or those of ``tune_list``, ranges are widened where that helps the readers of values.
    ``mask`` is an input that is 0 for padding; empty, it is found where the graph and the data
    show it, and ``none`` counts padding too. A ``recipe`` tunes the weights for ``target``.
    ``model_name`` and ``seed`` are for the table's header. The table carries ``keep_samples`` of
    the samples at most, for deployment to check with.
    """

    method: str = DEFAULT
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    searched: Sequence[str] = ()
    inference_num: int = 30
    tune_num: int = 0
    tune_list: str | Path | None = None
    mask: str = ""
    recipe: str = ""
    target: str = "ort-cpu"
    model_name: str = ""
    seed: int = 0
    keep_samples: int = KEPT

    @property
    def methods(self) -> list[Method]:
        """The methods whose tables are needed.

        Raises QdqcError for an unknown one, and for options out of their bounds, whether a wanted
        method has them or not.
        """
        every = [method_named(name, **self.options) for name in METHODS.names()]
        if self.searched:
            return [method_named(name, **self.options) for name in self.searched]
        if self.method.lower().removeprefix("use_") == BEST_OF:
            return every
        return [method_named(self.method, **self.options)]

    def check(self) -> None:
        """What can be known before any work begins. Raises QdqcError."""
        from qdqc.quant.targets.target import target_named

        _ = self.methods
        target_named(self.target)
        if self.searched and not self.inference_num:
            raise QdqcError(
                "a search of methods needs samples to try them on",
                notes=["give `inference_num` above 0"],
            )
        if self.recipe:
            from qdqc.tuning.recipe import recipe_named

            recipe_named(self.recipe)


@dataclass
class Calibrated:
    """A ``module``, tuned where a recipe was asked for, and the ``table`` that belongs to it.

    ``scores`` are those of the methods that were searched, ``widened`` the number of ranges that
    tuning changed by method, ``statistics`` what was seen of the values of the first module.
    """

    module: Module
    table: Table
    statistics: Collector
    tuned: Tuned | None = None
    scores: ThresholdScores | None = None
    widened: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def clipped(self) -> int:
        """How many ranges leave out some of what was observed."""
        ends = self.table.observed
        rows = self.table.rows.items()
        return sum(row.min > ends[n][0] or row.max < ends[n][1] for n, row in rows)

    def outliers(self) -> list[Outlier]:
        """Values whose range few numbers make: these lose most in integers."""
        bounded = [
            result.name
            for node in self.module.graph.nodes()
            if node.traits.fixed is not None
            for result in node.present_results
        ]
        return outlier_driven(self.statistics.statistics, bounded)


def calibrate(
    model: Any,
    dataset: Given,
    *,
    method: str = DEFAULT,
    mask: str = "",
    input_num: int = 0,
    keep_samples: int = KEPT,
    input_shapes: Mapping[str, Sequence[int | str]] | None = None,
    listener: Listener = SILENT,
) -> Table:
    """The calibration table of a float model over samples.

    ``model`` is a Module as ``transform`` gives it, or a path or ModelProto, which is transformed
    first. ``dataset`` is a file or a folder as ``run_calibration`` takes it, or an iterable of
    dicts of arrays by input, of which ``input_num`` are used (0 for all). ``method`` is a
    threshold method or ``best_of``; ``mask`` is an input that is 0 for padding, ``none`` counts
    padding too. The table carries ``keep_samples`` of them at most, 32 MB in all, for deployment
    to check with. Raises QdqcError.
    """
    module = model
    if not isinstance(model, Module):
        from qdqc.flow.transform import transform

        module = transform(model, input_shapes=input_shapes, listener=listener).module
    given = dataset if isinstance(dataset, str | Path) else list(dataset)
    data = DataSource(dataset=given, input_num=input_num).open(module.graph, listener)
    request = Calibration(method=method, mask=mask, keep_samples=keep_samples)
    return calibrate_module(module, data, request, listener=listener).table


def calibrate_module(
    module: Module,
    data: Dataset,
    request: Calibration,
    *,
    effort: Effort = ALONE,
    listener: Listener = SILENT,
) -> Calibrated:
    """Choose the range of each value of a module over samples. Raises QdqcError.

    With a recipe the module is tuned, and the table is that of the tuned one.
    """
    request.check()
    for odd in odd_weights(module.graph):
        listener.warn(
            f"{odd.message}, a parameter of '{odd.node.name}': what depends on it is lost"
        )
    request = replace(request, mask=mask_of(module, data, request.mask, listener))
    work = _Work(data, request, effort, listener)
    if not request.recipe:
        table = work.table_of(module)
        work.keep(table, module)
        return Calibrated(module, table, work.statistics[0], None, work.scores, work.widened)
    from qdqc.tuning.recipe import tune

    result = tune(
        module, data, request.recipe, work.table_of, target=request.target, mask=request.mask
    )
    result.table.header["recipe"] = request.recipe
    work.keep(result.table, module)
    statistics = work.statistics[0]
    return Calibrated(result.module, result.table, statistics, result, work.scores, work.widened)


def mask_of(module: Module, data: Dataset, wanted: str, listener: Listener) -> str:
    """The input to mask by: the one that is wanted, else the one that shows padding; or empty."""
    if wanted:
        return "" if wanted == NO_MASK else wanted
    mask = found_mask(module.graph)
    if mask is None or not shows_padding(data, mask):
        return ""
    listener.note(
        f"padding by '{mask}' is left out of the statistics; `mask` {NO_MASK} lets it count"
    )
    return mask


class _Work:
    """The choice of ranges for one module or, under a recipe, for several in turn."""

    def __init__(
        self, data: Dataset, request: Calibration, effort: Effort, listener: Listener
    ) -> None:
        self.data, self.request, self.effort, self.listener = data, request, effort, listener
        self.statistics: list[Collector] = []
        self.scores: ThresholdScores | None = None
        self.widened: dict[str, int] = {}

    def table_of(self, module: Module) -> Table:
        """The table of a module, as the request chooses it among those of its methods."""
        request = self.request
        header = header_of(module, request.model_name, request.seed, request.mask)
        if self.data.reads_images:
            header[IMAGES] = "; ".join(images_text(module.graph))
        tables = tables_of(
            module,
            self.data,
            request.methods,
            header=header,
            mask=request.mask,
            effort=self.effort,
            listener=self.listener,
            statistics=self.statistics,
        )
        if not request.searched and len(tables) > 1:
            tables = {BEST_OF: self._best_of(module, tables)}
        if request.tune_num or request.tune_list:
            tables = {m: self._tuned(module, table) for m, table in tables.items()}
        if not request.searched:
            return next(iter(tables.values()))
        from qdqc.quant.deployment import Deployment
        from qdqc.search.strategies.threshold import search_threshold
        from qdqc.search.trials.mixed_models import MixedModels

        samples = list(islice(self.data, request.inference_num))
        models = MixedModels(module, Deployment(target=request.target))
        report = self.listener.stage("search", "method")
        self.scores = search_threshold(
            models, tables, samples, progress=lambda done, total: report(done, total, "")
        )
        return tables[self.scores.method]

    def keep(self, table: Table, module: Module) -> None:
        """Let the table carry some of the samples, where any are wanted and can be kept."""
        count = self.request.keep_samples
        kept = kept_of(self.data, module.graph, count) if count else None
        if kept is None and count:
            self.listener.note(
                "the table keeps no samples: deployment has to be given `test_input`"
            )
        table.keep(kept)

    def _best_of(self, module: Module, tables: Mapping[str, Table]) -> Table:
        from qdqc.search.strategies.tuned_ranges import best_of

        samples = list(islice(self.data, self.request.tune_num or _LOCAL_SAMPLES))
        return best_of(module, {DEFAULT: tables[DEFAULT], **tables}, samples)

    def _tuned(self, module: Module, table: Table) -> Table:
        from qdqc.search.strategies.tuned_ranges import tuned

        request, source = self.request, self.data
        if request.tune_list:
            source = open_list(request.tune_list, module.graph)
        samples = list(islice(source, request.tune_num or None))
        chosen = tuned(module, table, samples)
        chosen.header["tune number"] = str(len(samples))
        widened = sum(row != table.rows[name] for name, row in chosen.rows.items())
        method = table.header["method"]
        self.widened[method] = widened
        self.listener.note(f"{method}: tuned on {len(samples)} samples, {widened} widened")
        return chosen


def tables_of(
    module: Module,
    data: Dataset,
    methods: Sequence[Method | str],
    *,
    header: Mapping[str, str],
    mask: str = "",
    effort: Effort = ALONE,
    listener: Listener = SILENT,
    statistics: list[Collector] | None = None,
) -> dict[str, Table]:
    """The tables of a module by several methods, by name, from one run over the samples.

    ``statistics`` takes what was seen. Where it is interrupted with a cache at hand, the message
    says that the work goes on from there. Raises QdqcError.
    """
    resources = effort.resources(header, listener)
    report = listener.stage("calibration")
    try:
        return tables_by_methods(
            module,
            data,
            open_taps_of(module, lean=bool(effort.memory_limit)),
            methods,
            header=header,
            progress=lambda done, total: report(done, total, ""),
            warn=listener.warn,
            resources=resources,
            masking=masking_by(module.graph, mask) if mask else None,
            look=None if statistics is None else statistics.append,
        )
    except KeyboardInterrupt as stop:
        if resources.cache is None or not resources.cache.usable:
            raise
        stop.args = (f"{str(stop) or 'interrupted'}: the same command goes on from there",)
        raise


def header_of(module: Module, model_name: str, seed: int, mask: str = "") -> dict[str, str]:
    """What a table says of the model and the tools that it comes from."""
    return {
        "tool": f"qdqc {own_version()}",
        "libraries": ", ".join(f"{p} {version_of(p)}" for p in _LIBRARIES),
        "model": model_name or module.name,
        "digest": module_digest(module),
        "seed": str(seed),
        **({"mask": mask} if mask else {}),
    }
