"""run_calibration: run a model over data, and write the ranges of its values as a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qdqc.calibration.methods.extremes import Percentile
from qdqc.calibration.methods.method import BINS, METHODS
from qdqc.calibration.thresholds import DEFAULT
from qdqc.diagnostics import EXIT_OK
from qdqc.files import refuse_inputs, refuse_unwritable
from qdqc.tools.command import CommandParser, Invocation, execute
from qdqc.tools.data_options import (
    add_data_options,
    add_effort_options,
    open_data,
    positive,
    resources_of,
    table_header,
)
from qdqc.tools.ir_options import add_plugin_option
from qdqc.tools.progress import Progress
from qdqc.tools.range_options import BEST_OF, add_range_options, chosen_table, wanted_methods
from qdqc.tools.recipe_options import add_recipe_options, check_recipe, tuned_by_recipe, tuned_files

if TYPE_CHECKING:
    from qdqc.calibration.statistics import Collector
    from qdqc.calibration.table import Table
    from qdqc.data.dataset import Dataset
    from qdqc.ir.graph import Graph, Module

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
    methods = ", ".join(METHODS.names())
    add("--cali_method", default=DEFAULT, metavar="METHOD", help=f"{methods}, {BEST_OF}")
    add("--histogram_bin_num", type=positive, default=BINS, metavar="N", help="bins of kl")
    add(
        "--percentile",
        type=float,
        default=Percentile.percentile,
        metavar="P",
        help="share of the elements that percentile9999 keeps, in percent",
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
    from qdqc.calibration.table import save_table
    from qdqc.text.qir_files import load

    args = invocation.args
    wanted_methods(args)
    check_recipe(args)
    target = Path(args.calibration_table)
    outputs = [target, *tuned_files(args), *filter(None, [args.quantize_table])]
    sources = [args.dataset, args.data_list, args.tune_list]
    refuse_inputs(outputs, [args.model, *filter(None, sources)])
    refuse_unwritable(outputs)
    module = load(args.model)
    dataset = open_data(module.graph, invocation)
    seen: list[Collector] = []

    def calibrated(changed: Module) -> Table:
        return chosen_table(
            invocation, changed, dataset, _tables(changed, dataset, invocation, seen)
        )

    if args.recipe:
        table = tuned_by_recipe(invocation, module, dataset, calibrated)
    else:
        table = calibrated(module)
    save_table(table, target)
    _tell(invocation, table)
    _tell_outliers(invocation, module.graph, seen[0])
    if args.search == "search_qtable":
        _search_qtable(invocation)
    return EXIT_OK


def _search_qtable(invocation: Invocation) -> None:
    """Go on with run_sensitive_layer; its new table takes the place of the first one."""
    from qdqc.files import read_text, write_whole
    from qdqc.tools.run_sensitive_layer import search_layers, sensitive_layer_parser
    from qdqc.tools.search_files import new_table_path

    args = invocation.args
    given: dict[str, object] = {
        "--dataset": args.dataset,
        "--data_list": args.data_list,
        "--calibration_table": args.calibration_table,
        "--quantize_table": args.quantize_table,
        "--quantize_method_list": ",".join(args.quantize_method_list),
        "--max_float_layers": args.max_float_layers,
        "--memory_limit": args.memory_limit or None,
        "--cache": args.cache,
    }
    same = ("input_num", "seed", "max_bad", "batch_size", "inference_num", "expected_cos")
    given |= {f"--{name}": getattr(args, name) for name in (*same, "target", "workers")}
    words = [
        w for option, value in given.items() if value is not None for w in (option, str(value))
    ]
    flags = ["--no_cache"] * args.no_cache + ["-q"] * args.quiet + ["-v"] * args.verbose
    asked = sensitive_layer_parser().parse_args([args.tuned or args.model, *words, *flags])
    asked.report = None
    search_layers(Invocation(asked, invocation.report))
    text = read_text(new_table_path(args.quantize_table), "new table", "search again")
    write_whole(args.calibration_table, text)


def _tables(
    module: Module, dataset: Dataset, invocation: Invocation, seen: list[Collector]
) -> dict[str, Table]:
    """The tables of a module by the methods that are wanted; ``seen`` takes the statistics."""
    from qdqc.calibration.calibrate import calibrate
    from qdqc.calibration.masking import masking_by
    from qdqc.runtime.sessions.open_taps import open_taps_of

    args = invocation.args
    masking = masking_by(module.graph, args.mask) if args.mask else None
    header = table_header(module, args, args.mask)
    resources = resources_of(invocation, header)
    try:
        with Progress("calibration", shown=invocation.verbosity >= 0) as progress:
            return calibrate(
                module,
                dataset,
                open_taps_of(module, lean=bool(args.memory_limit)),
                wanted_methods(args),
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
    from qdqc.calibration.outliers import outlier_driven

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
