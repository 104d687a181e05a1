"""fp_forward: a qtable that leaves whole parts of a network float."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qdqc.diagnostics import EXIT_OK, QdqcError
from qdqc.quant.qtable import MODES
from qdqc.tools.arguments import names
from qdqc.tools.command import CommandParser, Invocation, execute
from qdqc.tools.ir_options import add_plugin_option

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return execute(_parser(), _forward, argv)


def _parser() -> CommandParser:
    parser = CommandParser(
        "fp_forward",
        "Write a qtable of whole parts that stay float: before layers, behind them, or between.",
        "fp_forward net.qir --outputs boxes,scores --blocks stem:pool1 -o net.qtable",
    )
    add = parser.add_argument
    add("model", metavar="MODEL.qir", help="what model_transform wrote")
    add(
        "--inputs",
        "--fpfwd_inputs",
        type=names,
        default=[],
        metavar="A,B",
        help="these layers and all that lead to them",
    )
    add(
        "--outputs",
        "--fpfwd_outputs",
        type=names,
        default=[],
        metavar="A,B",
        help="these layers and all that follows from them",
    )
    add(
        "--blocks",
        "--fpfwd_blocks",
        type=_block,
        nargs="+",
        action="extend",
        default=[],
        metavar="S1,S2:E1,E2",
        help="all on the ways from some layers to others",
    )
    modes = tuple(m for m in MODES if m != "INT8")
    add("--fp_type", default="F32", type=str.upper, choices=modes, help="mode of these layers")
    add("--chip", "--processor", "--target", dest="target", default="ort-cpu", help="the target")
    add("-o", "--quantize_table", required=True, metavar="QTABLE", help="the qtable, written")
    add_plugin_option(parser)
    return parser


def _block(text: str) -> tuple[list[str], list[str]]:
    """Starts and ends of a block; a name that holds a colon can't be given here."""
    starts, colon, ends = text.partition(":")
    block = names(starts), names(ends)
    if not colon or not all(block) or ":" in ends:
        raise argparse.ArgumentTypeError(f"'{text}' is not a block such as start:end")
    return block


def _forward(invocation: Invocation) -> int:
    from qdqc.files import refuse_inputs, refuse_unwritable, write_whole
    from qdqc.quant.targets.target import target_named
    from qdqc.search.strategies.regions import between, with_ancestors, with_descendants
    from qdqc.text.qir_files import load
    from qdqc.tools.search_files import SearchFiles, qtable_text

    args = invocation.args
    if not (args.inputs or args.outputs or args.blocks):
        note = "give --inputs, --outputs or --blocks"
        raise QdqcError("no part of the network was named", notes=[note])
    target_named(args.target)
    refuse_inputs([args.quantize_table], [args.model])
    refuse_unwritable([args.quantize_table])
    graph = load(args.model).graph
    chosen: set[Any] = with_ancestors(graph, args.inputs) | with_descendants(graph, args.outputs)
    for starts, ends in args.blocks:
        chosen |= between(graph, starts, ends)
    files = SearchFiles(args.quantize_table, args.model, args.target, args.fp_type)
    floats = [node.name for node in graph.nodes() if node in chosen]
    write_whole(Path(args.quantize_table), qtable_text(files, floats))
    invocation.report["float_layers"] = floats
    invocation.tell(
        f"wrote {args.quantize_table}: {len(floats)} of {len(graph)} layers stay {args.fp_type}"
    )
    return EXIT_OK


if __name__ == "__main__":
    raise SystemExit(main())
