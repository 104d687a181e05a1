"""run_calibration: run a model over data, and write the ranges of its values as a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qdqc.calibration.kept_samples import KEPT, samples_path
from qdqc.calibration.methods.extremes import Percentile
from qdqc.calibration.methods.method import BINS, METHODS
from qdqc.calibration.thresholds import DEFAULT
from qdqc.diagnostics import EXIT_OK
from qdqc.files import Content, refuse_inputs, refuse_unwritable, write_outputs
from qdqc.tools.arguments import count
from qdqc.tools.command import CommandParser, Invocation, execute
from qdqc.tools.data_options import (
    add_data_options,
    add_effort_options,
    effort_of,
    positive,
    source_of,
)
from qdqc.tools.ir_options import add_plugin_option
from qdqc.tools.range_options import add_range_options, check_ranges, searched_methods
from qdqc.tools.recipe_options import add_recipe_options, check_recipe, render_recipe, tuned_files

if TYPE_CHECKING:
    from qdqc.flow.calibrate import Calibrated, Calibration

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return execute(_parser(), _calibrate, argv)


def _parser() -> CommandParser:
    parser = CommandParser(
        "run_calibration",
        "Run a model over data, and write the range of each of its values as a calibration table.",
        "run_calibration model.qir --dataset photos/ --input_num 100 -o model.cali_table",
    )
    parser.add_argument("model", metavar="MODEL.qir", help="what model_transform wrote")
    add_data_options(parser)
    add = parser.add_argument
    add(
        "--mask",
        metavar="INPUT",
        help="a mask: positions where it is 0 do not count (found where the model shows it; "
        "none counts all)",
    )
    add(
        "--cali_method",
        default=DEFAULT,
        metavar="METHOD",
        help=f"{', '.join(METHODS.names())}, best_of",
    )
    add("--histogram_bin_num", type=positive, default=BINS, metavar="N", help="bins of kl")
    add(
        "--percentile",
        type=float,
        default=Percentile.percentile,
        metavar="P",
        help="share of the elements that percentile9999 keeps, in percent",
    )
    add(
        "--keep_samples",
        type=count,
        default=KEPT,
        metavar="N",
        help="samples kept in TABLE.samples.npz for model_deploy to check with, 32 MB at most; "
        "0 keeps none",
    )
    add_range_options(parser)
    add_recipe_options(parser)
    add_effort_options(parser)
    add_plugin_option(parser)
    add(
        "-o",
        "--calibration_table",
        required=True,
        metavar="TABLE",
        help="the table that is written",
    )
    return parser


def _calibrate(invocation: Invocation) -> int:
    from qdqc.calibration.table import table_files
    from qdqc.flow.calibrate import calibrate_module
    from qdqc.text.qir_files import load, qir_files

    args = invocation.args
    check_ranges(args)
    check_recipe(args)
    request = _request(args)
    request.check()
    target = Path(args.calibration_table)
    kept = [samples_path(target)] if args.keep_samples else []
    outputs = [target, *kept, *tuned_files(args), *filter(None, [args.quantize_table])]
    sources = [args.dataset, args.data_list, args.tune_list]
    refuse_inputs(outputs, [args.model, *filter(None, sources)])
    refuse_unwritable(outputs)
    listener, module = invocation.listener(), load(args.model)
    data = source_of(args).open(module.graph, listener)
    calibrated = calibrate_module(module, data, request, effort=effort_of(args), listener=listener)
    files: list[tuple[Path, Content]] = []
    if calibrated.tuned is not None:
        files += qir_files(calibrated.module, args.tuned)
        render_recipe(calibrated.tuned, invocation)
    _tell_scores(calibrated, invocation)
    write_outputs([*files, *table_files(calibrated.table, target)])
    _report(calibrated, invocation)
    if args.search == "search_qtable":
        _search_qtable(calibrated, target, invocation)
    return EXIT_OK


def _request(args: Any) -> Calibration:
    """How the options want ranges chosen."""
    from qdqc.flow.calibrate import Calibration

    return Calibration(
        method=args.cali_method,
        options={"bins": args.histogram_bin_num, "percentile": args.percentile},
        searched=searched_methods(args),
        inference_num=args.inference_num,
        tune_num=args.tune_num,
        tune_list=args.tune_list,
        mask=args.mask or "",
        recipe=args.recipe or "",
        target=args.target,
        model_name=Path(args.model).name,
        keep_samples=args.keep_samples,
        seed=args.seed,
    )


def _search_qtable(calibrated: Calibrated, target: Path, invocation: Invocation) -> None:
    """Go on with a search of the layers that stay float; the table becomes the one of these."""
    from qdqc.flow.search import SearchRequest, open_search
    from qdqc.quant.deployment import Deployment
    from qdqc.search.strategies.strategy import strategy_named
    from qdqc.tools.search_files import SearchFiles
    from qdqc.tools.search_outcome import finish_search

    args, listener = invocation.args, invocation.listener()
    request = SearchRequest(
        source=source_of(args),
        deployment=Deployment(target=args.target),
        inference_num=args.inference_num,
        expected_cos=args.expected_cos,
        effort=effort_of(args),
    )
    strategy = strategy_named(
        "smallest",
        methods=tuple(args.quantize_method_list),
        max_float_layers=args.max_float_layers,
    )
    table = calibrated.table.as_written()
    search = open_search(calibrated.module, table, request, listener=listener)
    model = args.tuned or args.model
    files = SearchFiles(args.quantize_table, model, args.target, "F32", table=target)
    finish_search(search, strategy, files, invocation, resumes=not args.no_cache)


def _tell_scores(calibrated: Calibrated, invocation: Invocation) -> None:
    """How near each method that was searched came to float."""
    if calibrated.scores is None:
        return
    best = calibrated.scores.method
    for method, score in calibrated.scores.scores.items():
        mark = "  best" if method == best else ""
        invocation.conclude(f"{method:<15} cos {score.cos:.6f}  sqnr {score.sqnr:6.2f} dB{mark}")
    invocation.report["search"] = {
        m: {"cos": s.cos, "sqnr": s.sqnr} for m, s in calibrated.scores.scores.items()
    }


def _report(calibrated: Calibrated, invocation: Invocation) -> None:
    """What was written, and the values whose range few numbers make."""
    file, table = invocation.args.calibration_table, calibrated.table
    method, samples = table.header["method"], int(table.header["samples"])
    outliers = calibrated.outliers()
    invocation.report |= {
        "tensors": len(table.rows),
        "samples": samples,
        "method": method,
        "table": file,
        "outliers": [{"name": o.name, "ratio": o.ratio, "kurtosis": o.kurtosis} for o in outliers],
    }
    invocation.tell(
        f"{file}: {len(table.rows)} values, {samples} samples, method {method}, "
        f"{calibrated.clipped} ranges clipped"
    )
    if table.samples is not None:
        kept = len(table.samples.arrays)
        invocation.tell(f"{samples_path(file)}: {kept} samples for model_deploy to check with")
    invocation.report["kept_samples"] = 0 if table.samples is None else len(table.samples.arrays)
    if outliers:
        invocation.tell("ranges that few outliers make (largest over 99.99 percent, kurtosis):")
    for outlier in outliers:
        invocation.tell(f"  {outlier.ratio:6.1f}  {outlier.kurtosis:8.1f}  {outlier.name}")


if __name__ == "__main__":
    raise SystemExit(main())
