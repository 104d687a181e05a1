"""Options of commands that run a model over data, and what they stand for."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qdqc.data.choice import SEED
from qdqc.tools.arguments import memory
from qdqc.tools.command import CommandParser, Invocation
from qdqc.tools.resources import peak_of
from qdqc.versions import own_version, version_of

if TYPE_CHECKING:
    from qdqc.calibration.collection import Resources
    from qdqc.data.dataset import Dataset
    from qdqc.ir.graph import Graph, Module

__all__ = [
    "add_data_options",
    "add_effort_options",
    "cores",
    "count",
    "open_data",
    "positive",
    "resources_of",
    "table_header",
]

_LOOKED_AT = 4
"""Samples whose numbers are held against the preprocessing before the work begins."""

_LIBRARIES = ("onnxruntime", "numpy")
"""What a table's numbers come from beside this tool."""

_THREADS = 4
"""Threads at most: each holds the values of a sample."""


def add_data_options(parser: CommandParser, input_num: int = 0) -> None:
    """Which samples are used."""
    data = parser.add_mutually_exclusive_group(required=True)
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


def count(text: str) -> int:
    """A whole number from 0 on."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def positive(text: str) -> int:
    """A whole number from 1 on."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return value


def resources_of(invocation: Invocation, header: Mapping[str, str]) -> Resources:
    """What collecting may use by the options: each thread or process runs a model of its own."""
    from qdqc.calibration.cache import Cache, default_folder
    from qdqc.calibration.collection import Resources

    args = invocation.args
    cache = None
    if not args.no_cache:
        folder = Path(args.cache) if args.cache else default_folder()
        cache = Cache(folder, invocation.warn)
    runtime = version_of("onnxruntime")
    return Resources(
        memory_limit=args.memory_limit,
        measure=peak_of,
        threads=min(cores(), _THREADS),
        workers=args.workers,
        cache=cache,
        key=f"{header['digest']} {header['tool']} onnxruntime {runtime}",
        tell=invocation.tell,
    )


def cores() -> int:
    """The cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def open_data(
    graph: Graph, invocation: Invocation, *, every: bool = False, look: bool = True
) -> Dataset:
    """The samples that the options name, or all of them in their order.

    ``look`` warns of numbers that the preprocessing can't make.
    """
    from qdqc.data.bad_samples import BadSamples
    from qdqc.data.dataset import open_dataset, open_list
    from qdqc.data.fit import input_specs
    from qdqc.data.plausible import implausible

    args = invocation.args
    opened: Callable[..., Dataset] = open_dataset if args.dataset else open_list
    dataset = opened(
        args.dataset or args.data_list,
        graph,
        input_num=0 if every else args.input_num,
        batch=args.batch_size,
        seed=args.seed,
        bad=BadSamples(args.max_bad, invocation.warn),
    )
    if not look:
        return dataset
    first = dataset.part(0, _LOOKED_AT)
    for warning in implausible(input_specs(graph), () if first is None else first):
        invocation.warn(warning)
    return dataset


def table_header(module: Module, args: Any, mask: str | None = None) -> dict[str, str]:
    """What a table says of the model and the tools that it comes from."""
    from qdqc.text.digest import module_digest

    return {
        "tool": f"qdqc {own_version()}",
        "libraries": ", ".join(f"{p} {version_of(p)}" for p in _LIBRARIES),
        "model": Path(args.model).name,
        "digest": module_digest(module),
        "seed": str(args.seed),
        **({"mask": mask} if mask else {}),
    }
