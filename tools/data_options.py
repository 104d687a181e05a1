"""Options of commands that run a model over data, and what they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qdqc.data.choice import SEED
from qdqc.tools.arguments import count, memory, positive
from qdqc.tools.command import CommandParser

if TYPE_CHECKING:
    from qdqc.flow.effort import Effort
    from qdqc.flow.samples import DataSource

__all__ = ["add_data_options", "add_effort_options", "effort_of", "source_of"]


def add_data_options(parser: CommandParser, input_num: int = 0, *, required: bool = True) -> None:
    """Which samples are used."""
    data = parser.add_mutually_exclusive_group(required=required)
    add = data.add_argument
    add(
        "--dataset",
        metavar="PATH",
        help="folder of images, npz or npy files, one such file, or a Python file with dataset()",
    )
    add("--data_list", metavar="FILE", help="a sample a line; several inputs comma separated")
    add = parser.add_argument
    add("--input_num", type=count, default=input_num, metavar="N", help="samples used, 0 for all")
    add("--seed", type=int, default=SEED, metavar="N", help="draws which samples are used")
    add("--max_bad", type=count, default=0, metavar="N", help="unusable samples to leave out")
    add("--batch_size", type=positive, default=1, metavar="N", help="rows where batch is symbolic")


def add_effort_options(parser: CommandParser) -> None:
    """What collecting statistics may use."""
    group = parser.add_argument_group("time, memory and disk")
    add = group.add_argument
    add("--workers", type=positive, default=1, metavar="N", help="processes that share the work")
    add(
        "--memory_limit",
        type=memory,
        default=0,
        metavar="SIZE",
        help="private memory, as 600MB or 1.5GB; the model may run several times (default: none)",
    )
    add(
        "--cache",
        metavar="DIR",
        help="where statistics are kept for the next run (default: ~/.cache/qdqc/calibration)",
    )
    add("--no_cache", action="store_true", help="keep no statistics and use none")


def source_of(args: Any) -> DataSource:
    """Where the samples come from by the options."""
    from qdqc.flow.samples import DataSource

    return DataSource(
        dataset=args.dataset,
        data_list=args.data_list,
        input_num=args.input_num,
        seed=args.seed,
        max_bad=args.max_bad,
        batch_size=args.batch_size,
    )


def effort_of(args: Any) -> Effort:
    """What a flow may use by the options."""
    from qdqc.flow.effort import Effort

    return Effort(
        workers=args.workers,
        memory_limit=args.memory_limit,
        cache=Path(args.cache) if args.cache else None,
        keeps=not args.no_cache,
    )
