"""run_calibration: run a model over data, and write the ranges of its values as a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from compiler.calibration.thresholds import BINS, DEFAULT, METHODS, Settings
from compiler.diagnostics import EXIT_OK
from compiler.files import refuse_inputs, refuse_unwritable
from tools.command import CommandParser, Invocation, execute
from tools.data_options import (
    add_data_options,
    add_effort_options,
    open_data,
    open_taps_of,
    positive,
    resources_of,
    table_header,
)
from tools.ir_options import add_plugin_option
from tools.progress import Progress
from tools.range_options import BEST_OF, add_range_options, chosen_table, wanted_methods

if TYPE_CHECKING:
    from compiler.calibration.statistics import Collector
    from compiler.calibration.table import Table
    from compiler.ir.graph import Graph

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
    add("--mask", metavar="INPUT", help="a mask: positions where it is 0 do not count")
    add("--cali_method", default=DEFAULT, metavar="METHOD", help=f"{', '.join(METHODS)}, {BEST_OF}")
    add("--histogram_bin_num", type=positive, default=BINS, metavar="N", help="bins of kl")
    add(
        "--percentile",
        type=float,
        default=Settings.percentile,
        metavar="P",
        help="share of the elements that percentile9999 keeps, in percent",
    )
    add_range_options(parser)
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
    from compiler.calibration.calibrate import calibrate_by, check_settings
    from compiler.calibration.masking import masking_by
    from compiler.calibration.table import save_table
    from compiler.text.files import load

    args = invocation.args
    methods = wanted_methods(args)
    settings = Settings(args.histogram_bin_num, args.percentile)
    check_settings(settings)
    target = Path(args.calibration_table)
    refuse_inputs(
        [target], [args.model, *filter(None, [args.dataset, args.data_list, args.tune_list])]
    )
    refuse_unwritable([target])
    module = load(args.model)
    masking = masking_by(module.graph, args.mask) if args.mask else None
    header = table_header(module, args)
    resources = resources_of(invocation, header)
    seen: list[Collector] = []
    try:
        dataset = open_data(module.graph, invocation)
        with Progress("calibration", shown=invocation.verbosity >= 0) as progress:
            tables = calibrate_by(
                module,
                dataset,
                open_taps_of(module, lean=bool(args.memory_limit)),
                methods,
                settings=settings,
                header=header,
                progress=progress.show,
                warn=invocation.warn,
                resources=resources,
                masking=masking,
                look=seen.append,
            )
    except KeyboardInterrupt:
        if resources.cache is None or not resources.cache.usable:
            raise
        raise KeyboardInterrupt("interrupted: the same command goes on from there") from None
    table = chosen_table(invocation, module, dataset, tables)
    save_table(table, target)
    _tell(invocation, table)
    _tell_outliers(invocation, module.graph, seen[0])
    return EXIT_OK


def _tell(invocation: Invocation, table: Table) -> None:
    args = invocation.args
    method, samples = table.header["method"], int(table.header["samples"])
    invocation.report |= {
        "tensors": len(table.rows),
        "samples": samples,
        "method": method,
        "table": args.calibration_table,
    }
    ends = table.observed
    clipped = sum(r.min > ends[n][0] or r.max < ends[n][1] for n, r in table.rows.items())
    invocation.tell(
        f"{args.calibration_table}: {len(table.rows)} values, {samples} samples, method {method}, "
        f"{clipped} ranges clipped"
    )


def _tell_outliers(invocation: Invocation, graph: Graph, seen: Collector) -> None:
    """The closing list: values whose range few numbers make, as these lose most in integers."""
    from compiler.calibration.outliers import outlier_driven

    bounded = [
        r.name
        for n in graph.nodes()
        if n.op.quant(*n.operand_types()).fixed is not None
        for r in n.present_results
    ]
    found = outlier_driven(seen.statistics, bounded)
    invocation.report["outliers"] = [
        {"name": o.name, "ratio": o.ratio, "kurtosis": o.kurtosis} for o in found
    ]
    if found:
        invocation.tell("ranges that few outliers make (largest over 99.99 percent, kurtosis):")
    for outlier in found:
        invocation.tell(f"  {outlier.ratio:6.1f}  {outlier.kurtosis:8.1f}  {outlier.name}")
