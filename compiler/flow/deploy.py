"""From a float module and its ranges to a deployed model that is checked against it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from qdqc.calibration.table import IMAGES, Table
from qdqc.data.dataset import Dataset
from qdqc.diagnostics import QdqcError, Severity
from qdqc.files import write_together
from qdqc.flow.listener import SILENT, Listener
from qdqc.flow.prove import Proof, proof_of
from qdqc.flow.samples import CheckSamples, check_samples, tell_images, warn_unstated
from qdqc.flow.unquantized import Unquantized, unquantized
from qdqc.ir.clone import clone
from qdqc.ir.graph import Module
from qdqc.onnx_io.rooted import rooted_model
from qdqc.onnx_io.saver import onnx_files
from qdqc.ops import DynamicQuantizeLinear
from qdqc.pipeline.discovery import load_passes, pipelines
from qdqc.pipeline.instrument import Instrument, Where
from qdqc.pipeline.manager import PassManager
from qdqc.pipeline.pass_ import PassContext
from qdqc.pipeline.spec import resolve
from qdqc.quant.deployment import INT8, Deployment
from qdqc.quant.lowering import has_quantized_activations, is_lowered, lower
from qdqc.quant.placement import Decision
from qdqc.quant.qtable import TOLERANCES, Qtable
from qdqc.quant.targets.ort_cpu import OrtCpu
from qdqc.quant.targets.ort_cpu_avx2 import OrtCpuAvx2
from qdqc.quant.targets.target import Target, target_named
from qdqc.runtime.comparison.check import check_against, taken
from qdqc.runtime.comparison.compare import Comparison
from qdqc.runtime.machine import has_vnni
from qdqc.runtime.timing.latency import OpTime, Seconds, op_times, time_models
from qdqc.text.qir_files import qir_files

__all__ = ["Benchmark", "Deployed", "check_deployment", "deploy", "fitting_target"]

_CHECKED_SAMPLES = 4
_PACED = 5
"""Rounds that say whether a model is slower than float."""


@dataclass(frozen=True)
class Benchmark:
    """Seconds of the ``float`` and the ``deployed`` model, interleaved, and those of their ops."""

    times: Mapping[str, Seconds]
    ops: Mapping[str, Sequence[OpTime]]


@dataclass(frozen=True)
class Deployed:
    """A lowered ``module`` for a target, and all that is known of how it came about.

    ``typed`` is the module whose types are integer, before its casts were spelt out;
    ``reference`` is the float module that it is held against, and ``decisions`` say by the names
    of nodes what was asked for. ``table`` gave the ranges, where there was one.
    """

    module: Module
    typed: Module
    reference: Module
    deployment: Deployment
    decisions: Mapping[str, Decision]
    table: Table | None = None

    @cached_property
    def unquantized(self) -> Unquantized | None:
        """Why no product took the mode that was asked for; None where one did."""
        return unquantized(self.typed, self.decisions, self.deployment.mode)

    @property
    def target(self) -> Target:
        return target_named(self.deployment.target)

    def samples(self, given: str | Path | None = None, listener: Listener = SILENT) -> CheckSamples:
        """Samples to check with: of a file or a folder, else those that the table kept.

        Where it kept none, or its file lost them (of which the listener is warned), they are
        random numbers of calibrated ranges. Raises QdqcError.
        """
        observed = self.table.observed if self.table is not None else {}
        if given or self.table is None:
            samples = check_samples(self.reference, given, _CHECKED_SAMPLES, observed)
            if isinstance(samples.samples, Dataset):
                tell_images(self.reference.graph, samples.samples, listener)
            return samples
        if IMAGES in self.table.header:
            warn_unstated(self.reference.graph, listener)
        try:
            kept = self.table.kept()
            if kept is not None:
                return CheckSamples(kept.samples(self.reference.graph), "calibration")
        except QdqcError as error:
            listener.warn(replace(error.diagnostic, severity=Severity.WARNING))
        return check_samples(self.reference, None, _CHECKED_SAMPLES, observed)

    def check(
        self,
        given: CheckSamples,
        tolerance: tuple[float, float] | None = None,
        excepts: Sequence[str] = (),
        *,
        every_value: bool = False,
        listener: Listener = SILENT,
    ) -> Comparison:
        """The outputs, or every value, against the float module over samples.

        ``tolerance`` is the least cosine and euclidean similarity, by default that of the mode.
        """
        samples = given.samples
        comparison, _ = check_against(
            self.module,
            self.reference,
            listener.track("check", samples, len(samples)),
            tolerance or TOLERANCES[self.deployment.mode],
            excepts,
            every_value=every_value,
            spread=not given.are_random,
        )
        return comparison

    def write(self, path: Path, *, rejected: bool = False) -> tuple[Path, Path]:
        """The model as ``x.onnx`` and, beside it, ``x.qir`` with its sidecar: all or none.

        A ``rejected`` model becomes ``x.onnx.rejected`` and ``x.rejected.qir``. Returns the paths
        of the model and of the text. Raises QdqcError.
        """
        text = path.with_suffix(".rejected.qir" if rejected else ".qir")
        model = path.with_name(f"{path.name}.rejected") if rejected else path
        write_together([*qir_files(self.module, text), *onnx_files(self.module, model)])
        return model, text

    def prove(self, path: Path, sample: Mapping[str, Any]) -> Proof:
        """How the target's runtime runs the written file, and whether its kernels are right."""
        decisions, runtime = self.decisions, self.target.runtime
        return proof_of(self.module, self.reference, decisions, path, sample, runtime)

    def pace(self, path: Path, sample: Mapping[str, Any]) -> tuple[float, float]:
        """Seconds of the float model and of the written file, roughly: the quickest runs of few.

        Processor time of one thread, in turns.
        """
        models = {"float": rooted_model(self.reference), "deployed": str(path)}
        feeds = {"float": sample, "deployed": taken(self.module, self.reference, sample)}
        times = time_models(models, feeds, rounds=_PACED, clock=time.process_time)
        return float(times["float"].min()), float(times["deployed"].min())

    def benchmark(self, path: Path, sample: Mapping[str, Any]) -> Benchmark:
        """Time the written file beside the float model on one thread."""
        models = {"float": rooted_model(self.reference), "deployed": str(path)}
        feeds = {"float": sample, "deployed": taken(self.module, self.reference, sample)}
        ops = {name: op_times(model, feeds[name]) for name, model in models.items()}
        return Benchmark(time_models(models, feeds), ops)


def check_deployment(
    deployment: Deployment, *, calibrated: bool, mixed: bool, quantized: bool
) -> None:
    """What can be known before the passes run. Raises QdqcError."""
    target_named(deployment.target)
    if deployment.mode == "F32" and mixed:
        raise QdqcError(
            "mode F32 leaves nothing for `qtable` to decide",
            notes=["leave out `qtable`, or deploy with mode INT8"],
        )
    if deployment.mode == "INT8" and not calibrated and not quantized:
        raise QdqcError(
            "mode INT8 needs `table`, as the module has no ranges of its own",
            notes=["calibrate the module first: run_calibration writes a `table`"],
        )


def deploy(
    module: Module,
    deployment: Deployment = INT8,
    *,
    table: Table | None = None,
    qtable: Qtable | None = None,
    reasons: Mapping[str, str] = {},
    listener: Listener = SILENT,
) -> Deployed:
    """Quantize a module for a target, and spell its types out as casts.

    ``table`` holds the ranges of its values, which INT8 needs unless the module came in with
    scales of another tool; its numbers count as its file has them. ``qtable`` is the mode of single
    nodes, ``reasons`` say by name why these are not INT8. The module stays as it is. Where no
    product takes the mode, the listener is warned. Raises QdqcError.
    """
    table = None if table is None else table.as_written()
    quantized = has_quantized_activations(module)
    given = {"calibrated": table is not None, "mixed": qtable is not None, "quantized": quantized}
    check_deployment(deployment, **given)
    target = fitting_target(deployment.target, listener.warn)
    deployment = replace(deployment, target=target)
    reference, lowered = clone(module), clone(module)
    lower(reference)  # where the module is quantized already
    load_passes()
    dynamic = any(isinstance(n.op, DynamicQuantizeLinear) for n in module.graph.nodes())
    stages = deployment.stages(**given, dynamic=dynamic, typed=not is_lowered(module))
    passes = resolve(stages.pipeline, pipelines())
    typed = _BeforeLast()
    report = PassManager(
        passes,
        instruments=[*listener.instruments, typed],
        verify_each=listener.verify_each,
        warn=listener.warn,
        table=table,
        qtable=qtable,
    ).run(lowered)
    before = typed.module or lowered
    known = {**report.reasons, **reasons}
    decisions = {n: _explained(d, known.get(n, "")) for n, d in report.decisions.items()}
    deployed = Deployed(lowered, before, reference, deployment, decisions, table)
    if deployed.unquantized is not None:
        listener.warn(deployed.unquantized.warning)
    return deployed


def _explained(decision: Decision, reason: str) -> Decision:
    return replace(decision, reason=reason) if reason and not decision.integer else decision


class _BeforeLast(Instrument):
    """Keeps the module that the last pass of a pipeline was given."""

    def __init__(self) -> None:
        self.module: Module | None = None

    def before(self, module: Module, where: Where, ctx: PassContext) -> None:
        if where.index == where.total:
            self.module = clone(module)


def fitting_target(name: str, warn: Callable[[str], object]) -> str:
    """The target that fits this machine: ort-cpu wants VNNI, and is warned of where it lacks.

    Raises QdqcError for a name that no target has.
    """
    if target_named(name).name != OrtCpu.name or has_vnni() is not False:
        return name
    warn(
        f"this processor has no VNNI: sums of {OrtCpu.name} could saturate, so weights take 7 "
        f"bits, as {OrtCpuAvx2.name} has them"
    )
    return OrtCpuAvx2.name
