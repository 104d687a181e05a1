"""run_calibration's options that choose ranges by running: best_of, --tune_num and --search."""

from __future__ import annotations

import argparse
from itertools import islice
from typing import TYPE_CHECKING, Any

from qdqc.calibration.methods.method import METHODS, Method
from qdqc.calibration.thresholds import method_named
from qdqc.diagnostics import QdqcError
from qdqc.tools.arguments import names
from qdqc.tools.command import CommandParser, Invocation
from qdqc.tools.progress import Progress

if TYPE_CHECKING:
    from qdqc.calibration.table import Table
    from qdqc.data.dataset import Dataset
    from qdqc.ir.graph import Module

__all__ = ["BEST_OF", "add_range_options", "chosen_table", "wanted_methods"]

BEST_OF = "best_of"
_SEARCHED = ["kl", "max", "percentile9999", "mse"]
_SEARCHES = ("False", "search_threshold", "search_qtable")
_LOCAL_SAMPLES = 5
"""Samples on which best_of judges when --tune_num does not say how many."""


def add_range_options(parser: CommandParser) -> None:
    """The options, as a group of their own."""
    add = parser.add_argument_group("ranges judged by running").add_argument
    add("--tune_num", type=_number, default=0, metavar="N", help="samples to tune on, 0 for none")
    add("--tune_list", metavar="FILE", help="samples to tune on, as --data_list")
    add("--search", default="False", choices=_SEARCHES, help="try methods")
    add("--inference_num", type=_number, default=30, metavar="N", help="samples to search on")
    add(
        "--quantize_method_list",
        type=names,
        default=_SEARCHED,
        metavar="A,B",
        help="methods that --search tries",
    )
    add("--quantize_table", metavar="QTABLE", help="search_qtable: the qtable that is written")
    add("--expected_cos", type=float, default=0.99, metavar="C", help="search_qtable: its goal")
    add("--max_float_layers", type=_number, metavar="N", help="search_qtable: as many stay float")


def _number(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def wanted_methods(args: Any) -> list[Method]:
    """The methods whose tables the options need. Raises QdqcError for an unknown one, and for
    settings out of their bounds, whether a wanted one has them or not.
    """
    options = {"bins": args.histogram_bin_num, "percentile": args.percentile}
    every = [method_named(name, **options) for name in METHODS.names()]
    if args.search == "search_qtable" and not args.quantize_table:
        note = "give --quantize_table QTABLE"
        raise QdqcError("search_qtable writes a qtable, which needs a name", notes=[note])
    if args.search == "search_threshold":
        if not args.quantize_method_list or not args.inference_num:
            raise QdqcError("--search needs methods and samples to try them on")
        return [method_named(m, **options) for m in args.quantize_method_list]
    if args.cali_method.lower().removeprefix("use_") == BEST_OF:
        return every
    return [method_named(args.cali_method, **options)]


def chosen_table(
    invocation: Invocation, module: Module, dataset: Dataset, tables: dict[str, Table]
) -> Table:
    """The one table that the options ask for, of those of several methods."""
    args = invocation.args
    if args.search != "search_threshold" and len(tables) > 1:
        tables = {BEST_OF: _best_of(invocation, module, dataset, tables)}
    if args.tune_num or args.tune_list:
        tables = {m: _tuned(invocation, module, dataset, t) for m, t in tables.items()}
    if args.search != "search_threshold":
        return next(iter(tables.values()))
    return _searched(invocation, module, dataset, tables)


def _best_of(
    invocation: Invocation, module: Module, dataset: Dataset, tables: dict[str, Table]
) -> Table:
    from qdqc.calibration.thresholds import DEFAULT
    from qdqc.search.strategies.tuned_ranges import best_of

    samples = list(islice(dataset, invocation.args.tune_num or _LOCAL_SAMPLES))
    return best_of(module, {DEFAULT: tables[DEFAULT], **tables}, samples)


def _tuned(invocation: Invocation, module: Module, dataset: Dataset, table: Table) -> Table:
    from qdqc.data.dataset import open_list
    from qdqc.search.strategies.tuned_ranges import tuned

    args = invocation.args
    source = dataset
    if args.tune_list:
        source = open_list(args.tune_list, module.graph, batch=args.batch_size)
    samples = list(islice(source, args.tune_num or None))
    found = tuned(module, table, samples)
    found.header["tune number"] = str(len(samples))
    widened = sum(row != table.rows[name] for name, row in found.rows.items())
    invocation.tell(f"{table.header['method']}: tuned on {len(samples)} samples, {widened} widened")
    return found


def _searched(
    invocation: Invocation, module: Module, dataset: Dataset, tables: dict[str, Table]
) -> Table:
    from qdqc.search.strategies.threshold import search_threshold

    samples = list(islice(dataset, invocation.args.inference_num))
    with Progress("search", shown=invocation.verbosity >= 0):
        found = search_threshold(module, tables, samples)
    for method, score in found.scores.items():
        mark = "  best" if method == found.method else ""
        invocation.tell(f"{method:<15} cos {score.cos:.6f}  sqnr {score.sqnr:6.2f} dB{mark}")
    invocation.report["search"] = {
        m: {"cos": s.cos, "sqnr": s.sqnr} for m, s in found.scores.items()
    }
    return tables[found.method]
