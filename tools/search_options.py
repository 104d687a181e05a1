"""Options that the commands of the search share, and what they stand for."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qdqc.diagnostics import QdqcError, suggestion
from qdqc.quant.qtable import MODES
from qdqc.tools.arguments import finite, names
from qdqc.tools.command import CommandParser, Invocation
from qdqc.tools.data_options import (
    add_data_options,
    add_effort_options,
    cores,
    count,
    open_data,
    resources_of,
    table_header,
)
from qdqc.tools.deploy_options import add_scheme
from qdqc.tools.progress import Progress
from qdqc.versions import version_of

if TYPE_CHECKING:
    from qdqc.calibration.table import Table
    from qdqc.ir.graph import Module
    from qdqc.runtime.sessions.session import Feeds
    from qdqc.search.trials.deployment import Deployment
    from qdqc.search.trials.journal import Journal
    from qdqc.search.trials.objective import Objective
    from qdqc.search.trials.trials import Trials

__all__ = ["DEFAULT_METHODS", "Request", "add_search_options"]

DEFAULT_METHODS = ["KL", "MAX", "Percentile9999"]
_CALIBRATED = 100
_THREADS = 4
"""Threads at most: each holds the values of a sample."""


def add_search_options(parser: CommandParser) -> None:
    """The options, in groups."""
    parser.add_argument("model", metavar="MODEL.qir", help="what model_transform wrote")
    add_data_options(parser, input_num=_CALIBRATED)
    add = parser.add_argument
    add("--calibration_table", required=True, metavar="TABLE", help="what run_calibration wrote")
    add("-o", "--quantize_table", required=True, metavar="QTABLE", help="the qtable, written")
    _add_target(parser)
    _add_goal(parser)
    add("--plot", metavar="F", help="a picture of what was found, .png or .svg, written")
    add_effort_options(parser)


def _add_target(parser: CommandParser) -> None:
    add = parser.add_argument_group("deployment that is searched").add_argument
    add("--target", "--chip", "--processor", default="ort-cpu", metavar="NAME", help="the target")
    add_scheme(parser)
    modes = tuple(m for m in MODES if m != "INT8")
    add("--fp_type", default="F32", type=str.upper, choices=modes, help="mode of float layers")


def _add_goal(parser: CommandParser) -> None:
    add = parser.add_argument_group("what is judged, and by what").add_argument
    add("--inference_num", type=count, default=30, metavar="N", help="samples to judge on")
    add("--samples", default="first", choices=("first", "worst"), help="which samples these are")
    add("--expected_cos", type=finite, default=0.99, metavar="C", help="likeness to be reached")
    add("--benchmark_method", default="cos", choices=("cos", "snr"), help="measure of likeness")
    add(
        "--global_compare_layers",
        type=names,
        default=[],
        metavar="A:W,B:W",
        help="values to compare, with their weights (default: the outputs, alike)",
    )
    add("--post_process", metavar="F.py", help="def PostProcess(outputs): what is compared instead")
    add("--metric", metavar="F.py", help="def metric(outputs, labels) -> float: judges instead")
    add("--labels", metavar="F", help="labels for --metric: npy, or text with one a line")
    add("--max_drop", type=finite, default=0.01, metavar="D", help="what the metric may lose")


@dataclass(frozen=True, eq=False)
class Request:
    """What a command was asked to search, read from its options when it is first needed."""

    invocation: Invocation
    module: Module

    @property
    def args(self) -> Any:
        return self.invocation.args

    def check(self) -> None:
        """Look at all that was given before any work begins. Raises QdqcError."""
        _ = self.base, self.deployment, self.objective
        if not self.samples:
            note = "give --inference_num above 0"
            raise QdqcError("there are no samples to search on", notes=[note])

    @cached_property
    def base(self) -> Table:
        """The table that was given. Raises QdqcError where it is another model's."""
        from qdqc.calibration.observed import plan_of
        from qdqc.calibration.table import load_table
        from qdqc.calibration.table_check import check_digest, check_table
        from qdqc.diagnostics import Severity
        from qdqc.text.digest import module_digest

        file: str = self.args.calibration_table
        table = load_table(file)
        check_digest(table, module_digest(self.module), file)
        for found in check_table(table, plan_of(self.module.graph).names, file):
            if found.severity is Severity.ERROR:
                raise QdqcError.of(found)
            self.invocation.warn(found)
        return table

    @cached_property
    def deployment(self) -> Deployment:
        from qdqc.quant.targets.target import target_named
        from qdqc.search.trials.deployment import Deployment

        target_named(self.args.target)
        return Deployment(self.module, self.args.target, self.args.symmetric, self.args.fp_type)

    def tables(self, methods: Sequence[str]) -> dict[str, Table]:
        """The given table by its method's name, and one of each of the other methods.

        They leave the same padding out.
        """
        from qdqc.calibration.calibrate import calibrate
        from qdqc.calibration.masking import masking_by
        from qdqc.calibration.thresholds import method_named
        from qdqc.runtime.sessions.open_taps import open_taps_of

        given = self.base.header.get("method", "given")
        others = [m for m in map(method_named, methods) if m.spelling != given]
        found = {given: self.base}
        if not others:
            return found
        mask = self.base.header.get("mask")
        header = table_header(self.module, self.args, mask)
        with Progress("calibration", shown=self.invocation.verbosity >= 0) as progress:
            made = calibrate(
                self.module,
                open_data(self.module.graph, self.invocation, look=False),
                open_taps_of(self.module, lean=bool(self.args.memory_limit)),
                others,
                header=header,
                progress=progress.show,
                resources=resources_of(self.invocation, header),
                masking=masking_by(self.module.graph, mask) if mask else None,
            )
        return found | made

    @cached_property
    def objective(self) -> Objective:
        """What models are judged by. Raises QdqcError for files and names that do not fit."""
        from qdqc.data.user_file import function_of
        from qdqc.search.trials.objective import Likeness, Metric

        args = self.args
        process = None
        if args.post_process:
            of_user = ("PostProcess", "post_process")
            process = _named(function_of(args.post_process, of_user, "the post-processing"))
        weights = self._weights()
        if not args.metric:
            if args.labels:
                note = "give --metric F.py, or leave --labels out"
                raise QdqcError("--labels are for a metric", notes=[note])
            return Likeness(weights, args.benchmark_method, process)
        metric = function_of(args.metric, ("metric",), "the metric")
        return Metric(tuple(weights), metric, self._labels(), process)

    def _weights(self) -> dict[str, float]:
        """The compared values: those that were named, or the float outputs."""
        given = [entry.partition(":") for entry in self.args.global_compare_layers]
        if not given:
            outputs = [v.name for v in self.module.graph.outputs if _is_float(v)]
            if not outputs:
                note = "name some with --global_compare_layers"
                raise QdqcError("the model has no float outputs to compare", notes=[note])
            return {n: 1 / len(outputs) for n in outputs}
        found: dict[str, float] = {}
        for name, _, weight in given:
            value = self.module.value(name)
            if value is None or value.graph is None:
                hint = suggestion(name, self.module.value_names())
                raise QdqcError(f"there is no value '{name}' to compare{hint}")
            try:
                found[name] = float(weight or 1 / len(given))
            except ValueError:
                raise QdqcError(f"'{weight}' is no weight of '{name}'") from None
        total = sum(found.values())
        if abs(total - 1) > 1e-3:
            raise QdqcError(f"the weights of --global_compare_layers sum to {total:g}, not to 1")
        return found

    def _labels(self) -> Any:
        """The labels, one a sample, in the order of the data."""
        import numpy as np

        from qdqc.files import read_text

        if not self.args.labels:
            return None
        if self.args.labels.endswith(".npy"):
            try:
                return np.atleast_1d(np.load(self.args.labels, allow_pickle=False))
            except (OSError, ValueError) as error:
                raise QdqcError(str(error), file=self.args.labels) from error
        text = read_text(self.args.labels, "list of labels", "write one label a line")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        try:
            return np.array([float(line) for line in lines])
        except ValueError:
            return np.array(lines)

    @cached_property
    def samples(self) -> Sequence[Feeds]:
        """The samples that models are judged on."""
        wanted: int = self.args.inference_num
        data = open_data(self.module.graph, self.invocation, every=True)
        if self.args.samples == "first":
            found: list[Feeds] = list(itertools.islice(data, wanted))
        else:
            found = self._worst(list(data), wanted)
        labels = getattr(self.objective, "labels", None)
        if labels is not None and len(labels) < len(found):
            raise QdqcError(
                f"there are {len(labels)} labels for {len(found)} samples",
                file=self.args.labels,
                notes=["give one label a sample, in the order of the data"],
            )
        return found

    def _worst(self, data: list[Feeds], wanted: int) -> list[Feeds]:
        """The samples on which float and INT8 differ most, in the order of the data."""
        from qdqc.search.trials.trials import worst_samples

        if self.args.labels:
            note = "leave --samples at first"
            raise QdqcError("labels belong to the first samples", notes=[note])
        kept = worst_samples(self.deployment, self.base, data, list(self._weights()), wanted)
        return [data[i] for i in kept]

    def trials(self) -> Trials:
        from qdqc.search.trials.kept import BUDGET
        from qdqc.search.trials.spread import Hands
        from qdqc.search.trials.trials import Trials

        limit = self.args.memory_limit // 3 if self.args.memory_limit else BUDGET
        return Trials(
            self.deployment,
            self.base,
            self.samples,
            self.objective,
            hands=Hands(min(cores(), _THREADS), self.args.workers),
            budget=min(BUDGET, limit),
        )

    @property
    def screened(self) -> int:
        """Samples on which methods are compared first; 0 where a layer's methods get all alike.

        A metric of the user's moves in steps, and says nothing on a few samples.
        """
        from qdqc.search.strategies.sensitivity import SCREENED

        return 0 if self.args.metric or getattr(self.args, "exact", False) else SCREENED

    @cached_property
    def journal(self) -> Journal:
        """What an earlier run of the same search found."""
        from qdqc.calibration.batches import Digest
        from qdqc.calibration.table import print_table
        from qdqc.search.trials.journal import Journal, default_folder
        from qdqc.text.digest import module_digest

        args = self.args
        digest = Digest()
        for sample in self.samples:
            digest.add(dict(sample))
        files = [Path(f).read_bytes().hex() for f in (args.metric, args.post_process) if f]
        labels = Path(args.labels).read_bytes().hex() if args.labels else ""
        versions = [version_of(p) for p in ("qdqc", "onnxruntime", "numpy")]
        key: list[object] = [
            *(module_digest(self.module), print_table(self.base), digest.text(), versions),
            *(args.target, args.symmetric, args.fp_type, args.benchmark_method),
            *(args.global_compare_layers, files, labels),
        ]
        folder = Path(args.cache) if args.cache else default_folder()
        journal = Journal(None if args.no_cache else folder, repr(key))
        if journal.taken_up:
            self.invocation.tell(f"{journal.taken_up} findings of an earlier run are taken up")
        return journal

    def goal_of(self, ideal: float) -> float:
        """The score to be reached: the likeness, or the float model's metric less the drop."""
        return ideal - self.args.max_drop if self.args.metric else self.args.expected_cos


def _is_float(value: Any) -> bool:
    elem = getattr(value.type, "elem", None)
    return bool(elem is not None and elem.is_float)


def _named(function: Any) -> Any:
    """A post-processing that may give one array, several, or a dict of them."""

    def process(outputs: Mapping[str, Any]) -> Mapping[str, Any]:
        import numpy as np

        found = function(dict(outputs))
        if isinstance(found, Mapping):
            return {str(n): np.asarray(a) for n, a in found.items()}
        several = found if isinstance(found, tuple | list) else [found]
        return {str(i): np.asarray(a) for i, a in enumerate(several)}

    return process
