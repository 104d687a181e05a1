"""run_calibration's options that choose ranges by running: best_of, --tune_num and --search."""

from __future__ import annotations

from typing import Any

from qdqc.diagnostics import QdqcError
from qdqc.tools.arguments import count, names
from qdqc.tools.command import CommandParser

__all__ = ["add_range_options", "check_ranges", "searched_methods"]

_SEARCHED = ["kl", "max", "percentile9999", "mse"]
_SEARCHES = ("False", "search_threshold", "search_qtable")


def add_range_options(parser: CommandParser) -> None:
    """The options, as a group of their own."""
    add = parser.add_argument_group("ranges judged by running").add_argument
    add("--tune_num", type=count, default=0, metavar="N", help="samples to tune on, 0 for none")
    add("--tune_list", metavar="FILE", help="samples to tune on, as --data_list")
    add("--search", default="False", choices=_SEARCHES, help="try methods")
    add("--inference_num", type=count, default=30, metavar="N", help="samples to search on")
    add(
        "--quantize_method_list",
        type=names,
        default=_SEARCHED,
        metavar="A,B",
        help="methods that --search tries",
    )
    add("--quantize_table", metavar="QTABLE", help="search_qtable: the qtable that is written")
    add("--expected_cos", type=float, default=0.99, metavar="C", help="search_qtable: its goal")
    add("--max_float_layers", type=count, metavar="N", help="search_qtable: as many stay float")


def check_ranges(args: Any) -> None:
    """What can be checked before anything is read. Raises QdqcError."""
    if args.search == "search_qtable" and not args.quantize_table:
        note = "give --quantize_table QTABLE"
        raise QdqcError("search_qtable writes a qtable, which needs a name", notes=[note])
    if args.search == "search_threshold" and not args.quantize_method_list:
        raise QdqcError("--search needs methods to try: give --quantize_method_list A,B")


def searched_methods(args: Any) -> list[str]:
    """The methods that --search tries for the whole model."""
    return args.quantize_method_list if args.search == "search_threshold" else []
