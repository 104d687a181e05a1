"""run_qtable: search the layers that stay float, by a walk, by a metric, or by time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qdqc.diagnostics import EXIT_OK
from qdqc.tools.arguments import count, finite, names
from qdqc.tools.command import CommandParser, Invocation, execute
from qdqc.tools.ir_options import add_plugin_option
from qdqc.tools.search_options import DEFAULT_METHODS, add_search_options, run_search

__all__ = ["main"]

_RANKED = 300


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return execute(_parser(), _search, argv)


def _parser() -> CommandParser:
    parser = CommandParser(
        "run_qtable",
        "Search a qtable: mix walks from the input by the likeness of layers, accuracy takes "
        "layers back until a metric is near the float one, pareto weighs accuracy and time.",
        "run_qtable net.qir --dataset photos/ --calibration_table net.cali_table "
        "--strategy pareto --max_latency 3.5 -o net.qtable",
    )
    add_search_options(parser)
    add = parser.add_argument_group("strategies").add_argument
    add(
        "--strategy",
        default="mix",
        metavar="NAME",
        help="mix, accuracy, pareto, smallest, or one of a plugin",
    )
    add("--min_layer_cos", type=finite, default=0.99, metavar="C", help="mix: layers below it")
    add("--loss_table", metavar="F", help="mix: likeness of layers (default: full_loss_table.txt)")
    add("--ranking_num", type=count, default=_RANKED, metavar="N", help="accuracy: ranked on them")
    add("--max_num_iterations", type=count, default=0, metavar="N", help="accuracy: 0 for all")
    add("--max_latency", type=finite, metavar="MS", help="pareto: milliseconds that a run may take")
    add("--points", type=count, default=7, metavar="N", help="pareto: models of the front")
    add(
        "--quantize_method_list",
        type=names,
        default=list(DEFAULT_METHODS),
        metavar="A,B",
        help="pareto: methods whose ranges are tried",
    )
    add_plugin_option(parser)
    return parser


def _search(invocation: Invocation) -> int:
    args = invocation.args
    options: dict[str, dict[str, Any]] = {
        "mix": {"min_layer_cos": args.min_layer_cos},
        "accuracy": {
            "ranking_num": args.ranking_num,
            "max_num_iterations": args.max_num_iterations,
        },
        "pareto": {
            "points": args.points,
            "max_latency": args.max_latency,
            "methods": tuple(args.quantize_method_list),
        },
        "smallest": {"methods": tuple(args.quantize_method_list)},
    }
    run_search(invocation, args.strategy, options.get(args.strategy, {}))
    return EXIT_OK


if __name__ == "__main__":
    raise SystemExit(main())
