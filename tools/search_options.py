"""Options that the commands of the search share, and what they stand for."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qdqc.diagnostics import QdqcError
from qdqc.quant.qtable import MODES
from qdqc.tools.arguments import count, finite, names
from qdqc.tools.command import CommandParser, Invocation
from qdqc.tools.data_options import add_data_options, add_effort_options, effort_of, source_of
from qdqc.tools.deploy_options import add_scheme
from qdqc.tools.metric_options import add_metric_options, labels_of, metric_of
from qdqc.tools.search_files import SearchFiles
from qdqc.tools.search_outcome import finish_search
from qdqc.user_files import brief, place_of, summary

if TYPE_CHECKING:
    from qdqc.flow.search import SearchRequest

__all__ = [
    "DEFAULT_METHODS",
    "add_search_options",
    "run_search",
]

DEFAULT_METHODS = ("KL", "MAX", "Percentile9999")
_CALIBRATED = 100


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
    add_metric_options(add)
    add("--max_drop", type=finite, default=0.01, metavar="D", help="what the metric may lose")


def run_search(invocation: Invocation, strategy: str, options: Mapping[str, Any]) -> None:
    """Search by a strategy as the options say, write what was found and show it.

    Raises QdqcError, and KeyboardInterrupt behind which the files hold what is known.
    """
    from qdqc.calibration.table import load_table
    from qdqc.flow.search import open_search
    from qdqc.search.strategies.strategy import strategy_named
    from qdqc.text.qir_files import load

    args = invocation.args
    chosen = strategy_named(strategy, **options)
    files = _files(args)
    _refuse_files(args, files, strategy)
    module, table = load(args.model), load_table(args.calibration_table)
    request, listener = _request(args), invocation.listener()
    search = open_search(module, table, request, listener=listener)
    finish_search(search, chosen, files, invocation, resumes=not args.no_cache)


def _files(args: Any) -> SearchFiles:
    return SearchFiles(
        args.quantize_table,
        args.model,
        args.target,
        args.fp_type,
        getattr(args, "loss_table", None),
        args.plot,
    )


def _refuse_files(args: Any, files: SearchFiles, strategy: str) -> None:
    """What can be checked of files before a search begins. Raises QdqcError.

    No output is an input, all can be written, and a plot can be drawn.
    """
    from qdqc.files import refuse_inputs, refuse_unwritable

    of_strategy = {"mix": [files.losses], "accuracy": []}
    outputs = [files.qtable, *of_strategy.get(strategy, [files.new_table, files.log])]
    outputs += [files.plot] if files.plot else []
    given = (args.dataset, args.data_list, args.labels, args.metric, args.post_process)
    refuse_inputs(outputs, [args.model, args.calibration_table, *filter(None, given)])
    refuse_unwritable(outputs)
    if files.plot:
        from qdqc.report.search_plot import check_plot

        check_plot(files.plot)


def _request(args: Any) -> SearchRequest:
    """What a command was asked to search. Raises QdqcError for files that can't be read."""
    from qdqc.flow.search import SearchRequest
    from qdqc.quant.deployment import Deployment
    from qdqc.user_files import function_of

    process, metric = None, metric_of(args)
    if args.post_process:
        of_user = ("PostProcess", "post_process")
        process = _by_name(function_of(args.post_process, of_user, "the post-processing"))
    files = filter(None, (args.metric, args.post_process, args.labels))
    return SearchRequest(
        source=source_of(args),
        deployment=Deployment(target=args.target, symmetric=args.symmetric),
        fp_type=args.fp_type,
        inference_num=args.inference_num,
        samples=args.samples,
        compared=_compared(args.global_compare_layers),
        expected_cos=args.expected_cos,
        benchmark_method=args.benchmark_method,
        post_process=process,
        metric=metric,
        labels=labels_of(args.labels),
        max_drop=args.max_drop,
        exact=getattr(args, "exact", False),
        effort=effort_of(args),
        fingerprint=[Path(f).read_bytes().hex() for f in files],
    )


def _compared(entries: Sequence[str]) -> dict[str, float] | None:
    """``A:W`` as weights by name; without weights all count alike."""
    compared: dict[str, float] = {}
    for name, _, weight in (entry.partition(":") for entry in entries):
        try:
            compared[name] = float(weight or 1 / len(entries))
        except ValueError:
            raise QdqcError(f"'{weight}' is not a weight of '{name}'") from None
    return compared or None


def _by_name(function: Any) -> Any:
    """A post-processing that may give one array, several, or a dict of them."""

    @functools.wraps(function)
    def process(outputs: Mapping[str, Any]) -> Mapping[str, Any]:
        import numpy as np

        result = function(dict(outputs))
        try:
            if isinstance(result, Mapping):
                return {str(n): np.asarray(a) for n, a in result.items()}
            several = result if isinstance(result, tuple | list) else [result]
            return {str(i): np.asarray(a) for i, a in enumerate(several)}
        except Exception as error:
            message = f"the post-processing gave {brief(result)}: {summary(error)}"
            note = "return an array, a list of them, or a dict of them by name"
            raise QdqcError(message, file=place_of(function), notes=[note]) from error

    return process
