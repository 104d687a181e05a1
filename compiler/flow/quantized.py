"""The whole flow in one call: a float model and data in, a deployed model with its proof out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from qdqc.calibration.table import Table
from qdqc.calibration.thresholds import DEFAULT
from qdqc.data.dataset import Dataset
from qdqc.diagnostics import QdqcError, suggestion
from qdqc.flow.auto import AutoRequest, plan_auto
from qdqc.flow.calibrate import Calibrated, Calibration, calibrate_module
from qdqc.flow.deploy import Deployed, check_deployment, deploy, fitting_target
from qdqc.flow.listener import SILENT, Listener
from qdqc.flow.report import Report
from qdqc.flow.samples import CheckSamples, DataSource, Given, held_back
from qdqc.flow.transform import transform
from qdqc.ir.graph import Module
from qdqc.onnx_io.exporter import export_onnx
from qdqc.onnx_io.saver import save_onnx
from qdqc.quant.deployment import Deployment
from qdqc.quant.lowering import has_quantized_activations
from qdqc.quant.qtable import MODES, Qtable, load_qtable, mode_named
from qdqc.scratch import scratch_folder
from qdqc.search.auto.plan import AutoPlan
from qdqc.tuning.recipe import Step

__all__ = ["AUTO", "Quantized", "quantize"]

AUTO = "AUTO"
"""The mode that is found for each layer."""

_CHECKED_SAMPLES = 4


@dataclass(frozen=True, repr=False)
class Quantized:
    """The deployed ``model``, a ModelProto, and the ``report`` of its figures.

    ``module`` is the same model as a module, ``table`` the ranges that it was deployed by.
    """

    model: Any
    report: Report
    module: Module
    table: Table | None = None

    def __repr__(self) -> str:
        return str(self.report)


def quantize(
    model: Any,
    dataset: Given,
    *,
    target: str = "ort-cpu",
    mode: str = "int8",
    method: str = DEFAULT,
    symmetric: bool = False,
    group_size: int = 32,
    qtable: Qtable | Mapping[str, str] | str | Path | None = None,
    correct_bias: bool = True,
    leave_float: bool = True,
    quant_input: bool = False,
    quant_output: bool = False,
    input_shapes: Mapping[str, Sequence[int | str]] | None = None,
    bind: Mapping[str, npt.ArrayLike] | None = None,
    recipe: str | None = None,
    mask: str = "",
    goal: str = "",
    budget: float = 0.0,
    metric: Callable[[Mapping[str, Any], Any], Any] | None = None,
    labels: Sequence[Any] | None = None,
    listener: Listener = SILENT,
) -> Quantized:
    """Simplify, calibrate, quantize and check a float model; no file is left behind.

    ``model`` is a path, a ModelProto or a module. ``dataset`` is any iterable of dicts of arrays
    by the names of the inputs, or a file or a folder as ``run_calibration`` takes it. ``mode`` is
    auto, int8, dyn8, w8, w4, f16 or f32, and ``qtable`` that of single nodes: a Qtable, a file, or
    modes by names and patterns. The data give int8 its ranges by ``method``, and the report
    its comparison with the float model over the first samples. A ``recipe`` tunes int8 weights on
    the data; ``mask`` is an input that is 0 for padding, by default the one that shows as such,
    and ``none`` counts padding too. ``bind`` gives inputs a value that is theirs in every run,
    which folds the branches that hang on them. With mode auto the best of all is tried on samples
    held back: ``goal``, ``budget``, ``metric`` and ``labels`` are those of ``AutoRequest``, and
    the report has the ``plan``. Other options are ``model_deploy``'s. Raises QdqcError.
    """
    deployment = Deployment(
        target=fitting_target(target, listener.warn),
        mode="INT8" if mode.upper() == AUTO else _mode(mode),
        symmetric=symmetric,
        correct_bias=correct_bias,
        leave_float=leave_float,
        group_size=group_size,
        quant_input=quant_input,
        quant_output=quant_output,
    )
    module = transform(model, input_shapes=input_shapes, bind=bind, listener=listener).module
    source = DataSource(dataset=dataset if isinstance(dataset, str | Path) else list(dataset))
    if mode.upper() == AUTO:
        judged: dict[str, Any] = {
            "goal": goal,
            "budget": budget,
            "metric": metric,
            "labels": labels,
        }
        request = AutoRequest(source=source, deployment=deployment, mask=mask, **judged)
        return _by_plan(plan_auto(module, request, listener=listener), listener)
    request = Calibration(method=method, mask=mask, recipe=recipe or "", target=deployment.target)
    return _by_modes(module, source, deployment, _qtable(qtable), request, listener)


def _by_modes(
    module: Module,
    source: DataSource,
    deployment: Deployment,
    modes: Qtable | None,
    request: Calibration,
    listener: Listener,
) -> Quantized:
    """The model of a mode and a qtable, calibrated where these need ranges."""
    quantized = has_quantized_activations(module)
    _check_recipe(request.recipe, deployment.mode, quantized=quantized)
    calibrates = (deployment.mode == "INT8" or modes is not None) and not quantized
    given = {"calibrated": calibrates, "mixed": modes is not None, "quantized": quantized}
    check_deployment(deployment, **given)
    samples = source.open(module.graph, listener, look=False)
    calibrated: Calibrated | None = None
    if calibrates:
        calibrated = calibrate_module(module, samples, request, listener=listener)
        module = calibrated.module
    return _deployed(module, calibrated, deployment, modes, samples, listener)


def _by_plan(plan: AutoPlan, listener: Listener) -> Quantized:
    """The model of a plan, checked on the samples that were held back."""
    deployed = deploy(
        plan.module,
        plan.deployment,
        table=plan.table,
        qtable=plan.qtable,
        reasons=plan.reasons,
        listener=listener,
    )
    return _finished(deployed, held_back(plan), (), plan)


def _deployed(
    module: Module,
    calibrated: Calibrated | None,
    deployment: Deployment,
    qtable: Qtable | None,
    samples: Dataset,
    listener: Listener,
) -> Quantized:
    table = None if calibrated is None else calibrated.table
    deployed = deploy(module, deployment, table=table, qtable=qtable, listener=listener)
    first = CheckSamples(list(itertools.islice(samples, _CHECKED_SAMPLES)), "calibration")
    tuned = calibrated.tuned if calibrated is not None else None
    return _finished(deployed, first, tuned.steps if tuned is not None else (), None)


def _finished(
    deployed: Deployed, samples: CheckSamples, steps: Sequence[Step], plan: AutoPlan | None
) -> Quantized:
    """The deployed model with its comparison and proof."""
    comparison = deployed.check(samples)
    with scratch_folder("quantized") as folder:
        path = Path(folder) / "model.onnx"
        save_onnx(deployed.module, path)
        proof = deployed.prove(path, samples.first)
    report = Report(comparison, samples.source, proof, tuple(steps), deployed.unquantized, plan)
    return Quantized(export_onnx(deployed.module), report, deployed.module, deployed.table)


def _mode(text: str) -> str:
    """The mode of that name. Raises QdqcError for an unknown one."""
    chosen = mode_named(text)
    if chosen is None:
        raise QdqcError(
            f"unknown mode '{text}'{suggestion(text.upper(), MODES)}",
            notes=[f"modes are {', '.join(MODES)}"],
        )
    return chosen


def _qtable(given: Qtable | Mapping[str, str] | str | Path | None) -> Qtable | None:
    """Raises QdqcError for a file that can't be read, and for an unknown mode."""
    if given is None or isinstance(given, Qtable):
        return given
    return Qtable.of(given) if isinstance(given, Mapping) else load_qtable(given)


def _check_recipe(recipe: str, mode: str, *, quantized: bool) -> None:
    """Raises QdqcError where there are no float weights to tune."""
    if recipe and (mode != "INT8" or quantized):
        what = "a model that is quantized already" if quantized else f"mode {mode}"
        raise QdqcError(
            f"a recipe tunes float weights for int8, and not those of {what}",
            notes=["leave `recipe` out"],
        )
