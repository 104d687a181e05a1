"""Calibration: run the model over data, and turn what its values were into ranges."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol, TypeAlias

from compiler.calibration.channels import channel_inputs
from compiler.calibration.statistics import Collector
from compiler.calibration.table import Table
from compiler.calibration.thresholds import (
    BINS,
    DEFAULT,
    LEVELS,
    PER_SAMPLE,
    PLAIN,
    Settings,
    method_name,
    method_named,
)
from compiler.data.fit import Sample
from compiler.diagnostics import Diagnostic, QdqcError, Severity
from compiler.ir.graph import Graph, Module
from compiler.ir.types import Array, Elem, TensorType

__all__ = [
    "Progress",
    "RunTaps",
    "calibrate",
    "check_settings",
    "collect",
    "make_table",
    "tapped_names",
    "warnings_of",
]

Progress: TypeAlias = Callable[[int], None]
"""Called after each sample with the number of samples done."""


class RunTaps(Protocol):
    """Runs the model on one sample after the other and gives the values of that name."""

    def __call__(
        self, samples: Iterable[Sample], names: Sequence[str], /
    ) -> Iterator[Mapping[str, Array]]: ...


def tapped_names(graph: Graph) -> list[str]:
    """The values that calibration looks at, in graph order.

    All float32 tensors of the top graph, inputs and results of nodes; no constants, nothing
    inside nested graphs.
    """
    results = (r for node in graph.nodes() for r in node.present_results)
    values = (*graph.inputs, *results)
    return [v.name for v in values if isinstance(v.type, TensorType) and v.type.elem is Elem.F32]


def _integer_inputs(graph: Graph) -> list[str]:
    """Inputs such as indices and masks: only their extremes are noted, for checks later."""
    types = ((v.name, v.type) for v in graph.inputs)
    return [n for n, t in types if isinstance(t, TensorType) and t.elem.is_integer]


def collect(
    graph: Graph,
    samples: Iterable[Sample],
    run_taps: RunTaps,
    progress: Progress | None = None,
    *,
    per_sample: bool = False,
) -> Collector:
    """Statistics of all tapped values over all samples, in one pass for every method.

    ``per_sample`` collects what ``thresholds.PER_SAMPLE`` wants beside. One sample's values are
    held at a time. Raises QdqcError when there are no samples.
    """
    names = tapped_names(graph)
    if not names:
        raise QdqcError("the model has no float32 values, so there is nothing to calibrate")
    collector = Collector(channel_inputs(graph), per_sample=per_sample)
    integers = _integer_inputs(graph)
    for values in run_taps(samples, [*names, *integers]):
        for name in names:
            if name in values:
                collector.update(name, values[name])
        for name in integers:
            collector.update_extremes(name, values[name])
        collector.end_sample()
        if progress is not None:
            progress(collector.samples)
    if not collector.samples:
        raise QdqcError(
            "no calibration data: there are no samples",
            notes=["give --dataset a folder of images, npz or npy files"],
        )
    return collector


def make_table(
    collector: Collector,
    method: str = DEFAULT,
    settings: Settings = PLAIN,
    header: Mapping[str, str] = {},
) -> Table:
    """The table of a method. ``header`` holds what the caller knows: tool, model and digest.

    Raises QdqcError for an unknown method and for settings out of their bounds.
    """
    found, name = method_named(method), method_name(method)
    check_settings(settings)
    lines = {
        **header,
        "method": name,
        "histogram bins": str(settings.bins),
        "samples": str(collector.samples),
    }
    if name == "percentile9999" and settings.percentile != Settings.percentile:
        lines["percentile"] = f"{settings.percentile:g}"
    seen = {n: s for n, s in collector.statistics.items() if s.count}
    return Table(
        rows={name: found(stats, settings) for name, stats in seen.items()},
        observed={n: (s.min, s.max) for n, s in seen.items()} | collector.extremes,
        channel_means={name: found.mean for name, found in collector.channels.items()},
        header=lines,
    )


def warnings_of(collector: Collector) -> list[Diagnostic]:
    """What looks wrong in the data: numbers that are not finite, values that are always zero."""
    out: list[Diagnostic] = []
    if collector.nonfinite:
        order = {name: place for place, name in enumerate(collector.statistics)}
        first = min(collector.nonfinite, key=lambda found: order[found.name])
        stats = collector.statistics[first.name]
        others = len(collector.nonfinite) - 1
        more = f", and {others} other values" if others else ""
        out.append(
            Diagnostic(
                Severity.WARNING,
                f"'{first.name}' has {stats.nans} NaN and {stats.infs} infinite elements, first "
                f"in sample {first.sample}{more}; they are left out of the ranges",
                notes=("check the preprocessing and that sample",),
            )
        )
    zero = [n for n, s in collector.statistics.items() if s.count and s.absmax == 0]
    if zero:
        more = f" and {len(zero) - 1} other values are" if len(zero) > 1 else " is"
        out.append(Diagnostic(Severity.WARNING, f"'{zero[0]}'{more} zero in all samples"))
    return out


def calibrate(
    module: Module,
    samples: Iterable[Sample],
    run_taps: RunTaps,
    method: str = DEFAULT,
    *,
    settings: Settings = PLAIN,
    header: Mapping[str, str] = {},
    progress: Progress | None = None,
    warn: Callable[[Diagnostic], None] | None = None,
) -> Table:
    """The calibration table of a module over samples, by a method of ``thresholds.METHODS``.

    ``warn`` is told of numbers that are not finite and of values that are always zero.
    Raises QdqcError.
    """
    name = method_name(method)
    check_settings(settings)
    per_sample = name in PER_SAMPLE
    collector = collect(module.graph, samples, run_taps, progress, per_sample=per_sample)
    if warn is not None:
        for diagnostic in warnings_of(collector):
            warn(diagnostic)
    return make_table(collector, method, settings, header)


def check_settings(settings: Settings) -> None:
    """Raises QdqcError for fewer than 128 bins, and for a percentile outside of 50 to 100."""
    if settings.bins < LEVELS:
        raise QdqcError(
            f"--histogram_bin_num {settings.bins} is less than {LEVELS}, the steps of 8 bits",
            notes=[f"leave the option out for {BINS} bins"],
        )
    if not 50 < settings.percentile <= 100:  # NaN, too
        raise QdqcError(
            f"--percentile {settings.percentile:g} is no share of the elements to keep, in percent",
            notes=["give a number above 50, such as 99.99, up to 100 for all"],
        )
