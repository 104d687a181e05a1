"""run_calibration: run a model over data, and write the ranges of its values as a table."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compiler.calibration.thresholds import BINS, DEFAULT, METHODS, Settings
from compiler.data.choice import SEED
from compiler.diagnostics import EXIT_OK
from compiler.files import refuse_inputs, refuse_unwritable
from tools.arguments import memory
from tools.command import CommandParser, Invocation, execute
from tools.ir_options import add_plugin_option
from tools.progress import Progress
from tools.range_options import BEST_OF, add_range_options, chosen_table, wanted_methods
from tools.resources import peak_of

if TYPE_CHECKING:
    from compiler.calibration.collection import Resources
    from compiler.calibration.statistics import Collector
    from compiler.calibration.table import Table
    from compiler.data.dataset import Dataset
    from compiler.ir.graph import Graph, Module

__all__ = ["main"]

_LOOKED_AT = 4
"""Samples whose numbers are held against the preprocessing before the work begins."""

_LIBRARIES = ("onnxruntime", "numpy")
"""What a table's numbers come from beside this tool."""

_THREADS = 4
"""Threads at most: each holds the values of a sample."""


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
    data = parser.add_mutually_exclusive_group(required=True)
    add = data.add_argument
    add(
        "--dataset",
        metavar="PATH",
        help="folder of images, npz or npy files, one such file, or a Python file with dataset()",
    )
    add("--data_list", metavar="FILE", help="a sample a line; several inputs comma separated")
    add = parser.add_argument
    add("--input_num", type=_count, default=0, metavar="N", help="samples used, 0 for all")
    add("--seed", type=int, default=SEED, metavar="N", help="draws which samples are used")
    add("--max_bad", type=_count, default=0, metavar="N", help="unusable samples to leave out")
    add("--mask", metavar="INPUT", help="a mask: positions where it is 0 do not count")
    add("--batch_size", type=_positive, default=1, metavar="N", help="rows where batch is symbolic")
    add("--cali_method", default=DEFAULT, metavar="METHOD", help=f"{', '.join(METHODS)}, {BEST_OF}")
    add("--histogram_bin_num", type=_positive, default=BINS, metavar="N", help="bins of kl")
    add(
        "--percentile",
        type=float,
        default=Settings.percentile,
        metavar="P",
        help="share of the elements that percentile9999 keeps, in percent",
    )
    add_range_options(parser)
    _add_effort(parser)
    add_plugin_option(parser)
    add(
        "-o",
        "--calibration_table",
        required=True,
        metavar="TABLE",
        help="the table that is written",
    )
    return parser


def _add_effort(parser: CommandParser) -> None:
    group = parser.add_argument_group("time, memory and disk")
    add = group.add_argument
    add("--workers", type=_positive, default=1, metavar="N", help="processes that share the work")
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


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return value


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
    header = _header(module, args)
    resources = _resources(invocation, header)
    seen: list[Collector] = []
    try:
        dataset = _open(module.graph, invocation)
        with Progress("calibration", shown=invocation.verbosity >= 0) as progress:
            tables = calibrate_by(
                module,
                dataset,
                _taps_of(module, lean=bool(args.memory_limit)),
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


def _resources(invocation: Invocation, header: Mapping[str, str]) -> Resources:
    """What collecting may use by the options: each thread or process runs a model of its own."""
    from compiler.calibration.cache import Cache, default_folder
    from compiler.calibration.collection import Resources

    args = invocation.args
    cache = None
    if not args.no_cache:
        folder = Path(args.cache) if args.cache else default_folder()
        cache = Cache(folder, invocation.warn)
    runtime = importlib.metadata.version("onnxruntime")
    return Resources(
        memory_limit=args.memory_limit,
        measure=peak_of,
        threads=min(_cores(), _THREADS),
        workers=args.workers,
        cache=cache,
        key=f"{header['digest']} {header['tool']} onnxruntime {runtime}",
        tell=invocation.tell,
    )


def _cores() -> int:
    """The cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _open(graph: Graph, invocation: Invocation) -> Dataset:
    from compiler.data.bad_samples import BadSamples
    from compiler.data.dataset import open_dataset, open_list
    from compiler.data.fit import input_specs
    from compiler.data.plausible import implausible

    args = invocation.args
    opened: Callable[..., Dataset] = open_dataset if args.dataset else open_list
    dataset = opened(
        args.dataset or args.data_list,
        graph,
        input_num=args.input_num,
        batch=args.batch_size,
        seed=args.seed,
        bad=BadSamples(args.max_bad, invocation.warn),
    )
    first = dataset.part(0, _LOOKED_AT)
    for warning in implausible(input_specs(graph), () if first is None else first):
        invocation.warn(warning)
    return dataset


def _taps_of(module: Module, *, lean: bool) -> Callable[[Sequence[str]], Callable[..., Any]]:
    """Opens the module for some of its values.

    A run takes one thread, so that its numbers are the same however many run at a time.
    """

    def open_taps(names: Sequence[str], /) -> Callable[..., Any]:
        from compiler.runtime.session import Runner

        return Runner(module, names, threads=1, cut=True, lean=lean).run

    return open_taps


def _header(module: Module, args: Any) -> dict[str, str]:
    from compiler.text.digest import module_digest

    return {
        "tool": f"qdqc {importlib.metadata.version('qdq-compiler')}",
        "libraries": ", ".join(f"{p} {importlib.metadata.version(p)}" for p in _LIBRARIES),
        "model": Path(args.model).name,
        "digest": module_digest(module),
        "seed": str(args.seed),
        **({"mask": args.mask} if args.mask else {}),
    }


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
