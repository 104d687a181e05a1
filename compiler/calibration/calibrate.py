"""Calibration: run the model over data, and turn what its values were into ranges."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from qdqc.calibration.collection import SERIAL, OpenTaps, Progress, Resources, collect
from qdqc.calibration.masking import Masking
from qdqc.calibration.statistics import Collector
from qdqc.calibration.table import Table
from qdqc.calibration.thresholds import (
    BINS,
    DEFAULT,
    LEVELS,
    PLAIN,
    Settings,
    detail_of,
    method_name,
    method_named,
)
from qdqc.data.fit import Sample
from qdqc.diagnostics import Diagnostic, QdqcError, Severity
from qdqc.ir.graph import Module

__all__ = ["calibrate", "calibrate_by", "check_settings", "make_table", "warnings_of"]


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
    open_taps: OpenTaps,
    method: str = DEFAULT,
    *,
    settings: Settings = PLAIN,
    header: Mapping[str, str] = {},
    warn: Callable[[Diagnostic], object] | None = None,
    masking: Masking | None = None,
) -> Table:
    """The calibration table of a module over samples, by a method of ``thresholds.METHODS``.

    ``masking`` leaves padding out. ``warn`` is told of numbers that are not finite and of values
    that are always zero. Raises QdqcError.
    """
    tables = calibrate_by(
        module,
        samples,
        open_taps,
        [method],
        settings=settings,
        header=header,
        warn=warn,
        masking=masking,
    )
    return tables[method_name(method)]


def calibrate_by(
    module: Module,
    samples: Iterable[Sample],
    open_taps: OpenTaps,
    methods: Sequence[str],
    *,
    settings: Settings = PLAIN,
    header: Mapping[str, str] = {},
    progress: Progress | None = None,
    warn: Callable[[Diagnostic], object] | None = None,
    resources: Resources = SERIAL,
    masking: Masking | None = None,
    look: Callable[[Collector], None] | None = None,
) -> dict[str, Table]:
    """As ``calibrate``, the tables of several methods by name, from the same statistics.

    ``look`` is shown these.
    """
    detail = max(detail_of(method) for method in methods)
    check_settings(settings)
    collector = collect(
        module.graph,
        samples,
        open_taps,
        progress,
        detail=detail,
        resources=resources,
        masking=masking,
    )
    if warn is not None:
        for diagnostic in warnings_of(collector):
            warn(diagnostic)
    if look is not None:
        look(collector)
    names = [method_name(method) for method in methods]
    return {name: make_table(collector, name, settings, header) for name in names}


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
