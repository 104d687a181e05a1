"""Takes together what a page shows beside the figures: times, kernels, sizes, passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qdqc.calibration.table import Table
from qdqc.inspection.causes import Cause
from qdqc.inspection.difference import Difference
from qdqc.inspection.measure import Measured
from qdqc.inspection.sketch import Sketches
from qdqc.inspection.steps import Replay, replayed
from qdqc.ir.clone import clone
from qdqc.ir.graph import Module
from qdqc.onnx_io.rooted import rooted_model
from qdqc.onnx_io.saver import onnx_bytes, save_onnx
from qdqc.ops import Dequantize, Quantize
from qdqc.pipeline.discovery import pipelines
from qdqc.pipeline.spec import resolve
from qdqc.quant.lowering import lower
from qdqc.quant.qtable import Qtable
from qdqc.report.page.payload import COMPARED, Inspection
from qdqc.runtime.audit.audit import Audit, audit
from qdqc.runtime.comparison.check import taken
from qdqc.runtime.sessions.session import Feeds
from qdqc.runtime.timing.latency import spread, time_models
from qdqc.runtime.timing.node_times import node_times
from qdqc.scratch import scratch_folder

__all__ = ["Sources", "gather"]

_ROUNDS = 10


@dataclass(frozen=True)
class Sources:
    """Both modules, one sample, and what was said of them elsewhere.

    ``pipeline`` is that of the quantized module's header, ``table`` and ``qtable`` are what its
    passes read; the rest is as in ``Inspection``.
    """

    reference: Module
    quantized: Module
    sample: Feeds
    pipeline: str = ""
    table: Table | None = None
    qtable: Qtable | None = None
    searched: Mapping[str, Any] = field(default_factory=dict[str, Any])
    difference: Difference | None = None
    compared: tuple[str, str] = COMPARED


def gather(
    sources: Sources, measured: Measured, causes: Sequence[Cause], sketches: Sketches
) -> Inspection:
    """All that the page shows. Raises QdqcError where onnxruntime refuses one of the modules."""
    replay = replayed(sources.reference, sources.pipeline, sources.table, sources.qtable)
    lowered = clone(sources.quantized)
    lower(lowered)
    audited = _audited(lowered, replay)
    given = taken(sources.quantized, sources.reference, sources.sample)
    times = (
        node_times(sources.reference, sources.sample),
        node_times(sources.quantized, given),
    )
    modules = {"float": sources.reference, "quantized": lowered}
    models = {name: rooted_model(module) for name, module in modules.items()}
    names = {p.tap: p.name for p in (f.pair for f in measured.figures)}
    names |= {f.pair.value.name: f.name for f in measured.figures}
    names |= _cast_names(sources.quantized, names)
    return Inspection(
        reference=sources.reference,
        measured=measured,
        causes=causes,
        sketches=sketches,
        replay=replay,
        runs=_runs(audited, names),
        times=(times[0], _renamed(times[1], names)),
        facts=[
            ("samples", str(measured.samples)),
            ("values compared", str(len(measured.figures))),
            *_sizes(modules),
            *_latency(models, {"float": sources.sample, "quantized": given}),
            *_kernels(audited),
        ],
        pipeline=_pass_names(sources.pipeline),
        searched=sources.searched,
        difference=sources.difference,
        compared=sources.compared,
    )


def _cast_names(quantized: Module, names: Mapping[str, str]) -> dict[str, str]:
    """Casts that stand in the module by themselves belong to what they cast."""
    casts = [n for n in quantized.graph.nodes() if isinstance(n.op, Quantize | Dequantize)]
    sources = {n.result.name: n.need("x").name for n in casts}
    return {made: names.get(x, x) for made, x in sources.items() if made not in names}


def _audited(lowered: Module, replay: Replay) -> Audit:
    with scratch_folder("page") as folder:
        path = Path(folder) / "model.onnx"
        save_onnx(lowered, path)
        return audit(lowered, replay.decisions, path)


def _runs(audited: Audit, names: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """By the float module's names whether a node runs in integers, and why not."""
    return {names.get(row.name, row.name): (row.runs, row.reason) for row in audited.rows}


def _renamed(times: Mapping[str, float], names: Mapping[str, str]) -> dict[str, float]:
    out: dict[str, float] = {}
    for name, seconds in times.items():
        known = names.get(name, name)
        out[known] = out.get(known, 0.0) + seconds
    return out


def _sizes(modules: Mapping[str, Module]) -> list[tuple[str, str]]:
    before, after = (onnx_bytes(modules[name]) for name in ("float", "quantized"))
    return [("bytes", f"{before:,} float, {after:,} quantized ({before / max(1, after):.2f}x)")]


def _latency(models: Mapping[str, Any], feeds: Mapping[str, Feeds]) -> list[tuple[str, str]]:
    seconds = {n: spread(s).median for n, s in time_models(models, feeds, rounds=_ROUNDS).items()}
    before, after = seconds["float"], seconds["quantized"]
    text = f"{before * 1e3:.2f} ms float, {after * 1e3:.2f} ms quantized ({before / after:.2f}x)"
    return [("latency", f"{text}, one thread")]


def _kernels(audited: Audit) -> list[tuple[str, str]]:
    integer, floats = len(audited.products("integer")), len(audited.products("float"))
    moved, left = len(audited.others("integer")), len(audited.others("float"))
    return [
        ("products in integers", f"{integer} of {integer + floats}"),
        ("other nodes in integers", f"{moved} of {moved + left}"),
    ]


def _pass_names(pipeline: str) -> list[str]:
    return [p.name for p in resolve(pipeline, pipelines())] if pipeline else []
