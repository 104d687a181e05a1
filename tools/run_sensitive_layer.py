"""run_sensitive_layer: find the layers that INT8 costs most, and the fewest to leave float."""

from __future__ import annotations

from collections.abc import Sequence

from qdqc.diagnostics import EXIT_OK
from qdqc.tools.arguments import count, names
from qdqc.tools.command import CommandParser, Invocation, execute
from qdqc.tools.ir_options import add_plugin_option
from qdqc.tools.search_options import DEFAULT_METHODS, add_search_options, run_search

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return execute(_parser(), _search, argv)


def _parser() -> CommandParser:
    parser = CommandParser(
        "run_sensitive_layer",
        "Try each layer alone in INT8, rank them by what they lose, choose their ranges, and "
        "write the fewest float layers that reach the goal as a qtable.",
        "run_sensitive_layer net.qir --dataset photos/ --calibration_table net.cali_table "
        "-o net.qtable",
    )
    add_search_options(parser)
    add = parser.add_argument
    add(
        "--max_float_layers",
        type=count,
        metavar="N",
        help="the N worst layers stay float (default: as few as reach the goal)",
    )
    add(
        "--quantize_method_list",
        type=names,
        default=list(DEFAULT_METHODS),
        metavar="A,B",
        help="methods that are tried beside the given table's",
    )
    add(
        "--exact",
        action="store_true",
        help="try all methods on all samples, not on a few first",
    )
    add_plugin_option(parser)
    return parser


def _search(invocation: Invocation) -> int:
    args = invocation.args
    options = {
        "methods": tuple(args.quantize_method_list),
        "max_float_layers": args.max_float_layers,
    }
    run_search(invocation, "smallest", options)
    return EXIT_OK


if __name__ == "__main__":
    raise SystemExit(main())
