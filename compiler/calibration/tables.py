"""Calibration: run the model over data, and turn what its values were into ranges."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from qdqc.calibration.collection import SERIAL, OpenTaps, Progress, Resources, collect
from qdqc.calibration.masking import Masking
from qdqc.calibration.methods.method import BINS, Method
from qdqc.calibration.statistics import Collector
from qdqc.calibration.table import Table
from qdqc.calibration.thresholds import DEFAULT, method_named
from qdqc.data.dataset import Dataset
from qdqc.data.fit import Sample
from qdqc.diagnostics import Diagnostic, QdqcError, Severity
from qdqc.ir.fields import encode
from qdqc.ir.graph import Module
from qdqc.ir.live import Domain, domains_by_name

__all__ = ["calibrate", "make_table", "warnings_of"]


def make_table(
    collector: Collector,
    method: Method | str = DEFAULT,
    header: Mapping[str, str] = {},
    live: Mapping[str, Domain] = {},
) -> Table:
    """The table of a method. ``header`` holds what the caller knows: tool, model and digest.

    A range lies within the ``live`` domain of its value: numbers beyond count as its end. Raises
    QdqcError for an unknown method and for options out of their bounds.
    """
    chosen = _method(method)
    options = dict(encode(chosen))
    lines = {
        **header,
        "method": chosen.name,
        "histogram bins": options.pop("bins", str(BINS)),
        "samples": str(collector.samples),
        **options,
    }
    seen = {n: s for n, s in collector.statistics.items() if s.count}
    return Table(
        rows={n: chosen.range(s.within(*live[n]) if n in live else s) for n, s in seen.items()},
        observed={n: (s.min, s.max) for n, s in seen.items()} | collector.extremes,
        channel_means={name: channel.mean for name, channel in collector.channels.items()},
        header=lines,
    )


def _method(given: Method | str) -> Method:
    return method_named(given) if isinstance(given, str) else given


def warnings_of(collector: Collector) -> list[Diagnostic]:
    """What looks wrong in the data: numbers that are not finite, values that are always zero."""
    out: list[Diagnostic] = []
    if collector.nonfinite:
        order = {name: place for place, name in enumerate(collector.statistics)}
        first = min(collector.nonfinite, key=lambda entry: order[entry.name])
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


def _refuse_no_numbers(module: Module, collector: Collector, samples: Iterable[Sample]) -> None:
    """Raises QdqcError where an input, or all that the nodes make of it, has no finite number."""
    lost = [n for n, s in collector.statistics.items() if s.nonfinite and not s.count]
    inputs = {value.name for value in module.graph.inputs}
    made = [s for n, s in collector.statistics.items() if n not in inputs]
    named = next((n for n in lost if n in inputs), None)
    if named is None and (not lost or any(s.count for s in made)):
        return
    what = f"input '{named}' has" if named else f"'{lost[0]}' and all behind it have"
    raise QdqcError(
        f"{what} no finite number in any of {collector.samples} samples, so there is no range",
        file=samples.source if isinstance(samples, Dataset) else None,
        notes=[
            "check the data and the preprocessing"
            if named
            else "the data are finite: look for weights that are not"
        ],
    )


def calibrate(
    module: Module,
    samples: Iterable[Sample],
    open_taps: OpenTaps,
    methods: Sequence[Method | str] = (DEFAULT,),
    *,
    header: Mapping[str, str] = {},
    progress: Progress | None = None,
    warn: Callable[[Diagnostic], object] | None = None,
    resources: Resources = SERIAL,
    masking: Masking | None = None,
    look: Callable[[Collector], None] | None = None,
) -> dict[str, Table]:
    """The calibration tables of a module over samples, by the spelling of each method.

    All are of the same statistics, which ``look`` is shown. ``masking`` leaves padding out.
    ``warn`` gets numbers that are not finite and values that are always zero. Raises
    QdqcError, also where an input is never finite.
    """
    chosen = {method.spelling: method for method in map(_method, methods)}
    collector = collect(
        module.graph,
        samples,
        open_taps,
        progress,
        detail=max(method.detail for method in chosen.values()),
        resources=resources,
        masking=masking,
    )
    _refuse_no_numbers(module, collector, samples)
    if warn is not None:
        for diagnostic in warnings_of(collector):
            warn(diagnostic)
    if look is not None:
        look(collector)
    live = domains_by_name(module.graph)
    return {name: make_table(collector, method, header, live) for name, method in chosen.items()}
