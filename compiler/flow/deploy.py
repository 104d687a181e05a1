"""The whole flow in one call: a float model and data in, a deployed model with its proof out."""

from __future__ import annotations

import itertools
import json
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from qdqc.calibration.calibrate import calibrate
from qdqc.calibration.masking import masking_by
from qdqc.calibration.table import Table, save_table
from qdqc.calibration.thresholds import DEFAULT
from qdqc.data.dataset import Dataset, open_dataset
from qdqc.diagnostics import QdqcError, suggestion
from qdqc.flow.prove import proof_of
from qdqc.ir.clone import clone
from qdqc.ir.graph import Module
from qdqc.onnx_io.exporter import export_onnx
from qdqc.onnx_io.importer import import_onnx
from qdqc.onnx_io.saver import save_onnx
from qdqc.pipeline.manager import run
from qdqc.quant.deployment import deployment_pipeline
from qdqc.quant.lowering import has_quantized_activations, lower
from qdqc.quant.qtable import MODES, mode_named
from qdqc.quant.record import Record
from qdqc.quant.targets.ort_cpu import OrtCpu
from qdqc.quant.targets.ort_cpu_avx2 import OrtCpuAvx2
from qdqc.quant.targets.target import target_named
from qdqc.report.comparison_text import similarity_entries
from qdqc.runtime.comparison.check import check_against
from qdqc.runtime.cpu import has_vnni
from qdqc.runtime.sessions.open_taps import open_taps_of
from qdqc.tuning.recipe import recipe_named, tune

__all__ = ["Quantized", "fitting_target", "quantize"]

_CHECKED_SAMPLES = 4


@dataclass(frozen=True)
class Quantized:
    """The deployed ``model``, a ModelProto, and the ``report`` with keys as ``model_deploy``'s."""

    model: Any
    report: dict[str, Any] = field(repr=False)


def quantize(
    model: Any,
    dataset: str | Path | Iterable[Mapping[str, Any]],
    *,
    target: str = "ort-cpu",
    mode: str = "int8",
    method: str = DEFAULT,
    symmetric: bool = False,
    group_size: int = 32,
    qtable: Mapping[str, str] | str | Path | None = None,
    correct_bias: bool = True,
    quant_input: bool = False,
    quant_output: bool = False,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    recipe: str | None = None,
    mask: str = "",
) -> Quantized:
    """Simplify, calibrate, quantize and check a float model; no file is left behind.

    ``model`` is a path or a ModelProto. ``dataset`` is any iterable of dicts of arrays by the
    names of the inputs, or a file or a folder as ``run_calibration`` takes it. ``mode`` is
    int8, dyn8, w8, w4, f16 or f32, and ``qtable`` that of single nodes: a file, or modes by names
    and patterns. The data give int8 its ranges by ``method``, and the report
    ``outputs.{name}.{cos,euclid,sqnr}`` against the float model over the first samples. A
    ``recipe`` tunes int8 weights on the data, and the report's ``recipe`` has its steps; ``mask``
    is an input that is 0 for padding. Other options are ``model_deploy``'s. Raises QdqcError.
    """
    chosen = _mode(mode)
    target = fitting_target(target, warnings.warn)
    module = run(import_onnx(model, input_shapes=input_shapes), "@transform")
    quantized = has_quantized_activations(module)
    _check_recipe(recipe, chosen, quantized=quantized)
    lower(reference := clone(module))  # where the module is quantized already
    data = dataset if isinstance(dataset, str | Path) else list(dataset)
    samples = open_dataset(data, module.graph)
    with tempfile.TemporaryDirectory(prefix="qdqc-") as folder:
        lines = _qtable_file(qtable, Path(folder) / "qtable")
        table, told = None, dict[str, Any]()
        if (chosen == "INT8" or lines) and not quantized:
            table = str(Path(folder) / "table")
            module, told = _tuned(module, samples, table, method, recipe, target, mask)
        pipeline = deployment_pipeline(
            table,
            target=target,
            mode=chosen,
            qtable=lines,
            symmetric=symmetric,
            correct_bias=correct_bias,
            quantized=quantized,
            group_size=group_size,
            quant_input=quant_input,
            quant_output=quant_output,
        )
        record = Record()
        deployed = run(module, pipeline, instruments=[record])
        outputs = _similarities(deployed, reference, samples)
        save_onnx(deployed, path := Path(folder) / "model.onnx")
        runtime, first = target_named(target).runtime, next(iter(samples))
        proof = proof_of(deployed, reference, record.decisions, path, first, runtime)
    return Quantized(export_onnx(deployed), {"outputs": outputs} | told | proof.entries())


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


def _mode(text: str) -> str:
    """The mode of that name. Raises QdqcError for an unknown one."""
    chosen = mode_named(text)
    if chosen is None:
        raise QdqcError(
            f"unknown mode '{text}'{suggestion(text.upper(), MODES)}",
            notes=[f"modes are {', '.join(MODES)}"],
        )
    return chosen


def _qtable_file(qtable: Mapping[str, str] | str | Path | None, path: Path) -> str | None:
    """The file of a qtable; of one in memory it is written to ``path``."""
    if not isinstance(qtable, Mapping):
        return None if qtable is None else str(qtable)
    path.write_text("".join(f"{json.dumps(n)} {m}\n" for n, m in qtable.items()), encoding="utf-8")
    return str(path)


def _check_recipe(recipe: str | None, mode: str, *, quantized: bool) -> None:
    """Raises QdqcError for an unknown recipe, and where there are no float weights to tune."""
    if recipe is None:
        return
    recipe_named(recipe)
    if mode != "INT8" or quantized:
        what = "a model that is quantized already" if quantized else f"mode {mode}"
        raise QdqcError(
            f"a recipe tunes float weights for int8, and not those of {what}",
            notes=["leave recipe out"],
        )


def _tuned(
    module: Module,
    samples: Dataset,
    path: str,
    method: str,
    recipe: str | None,
    target: str,
    mask: str,
) -> tuple[Module, dict[str, Any]]:
    """What a recipe makes of the module, else the module as it is, and what the report says of
    it; the table that belongs to it is written to ``path``.
    """
    ranges = partial(_ranges, samples=samples, method=method, mask=mask)
    if recipe is None:
        save_table(ranges(module), path)
        return module, {}
    tuned = tune(module, samples, recipe, ranges, target=target, mask=mask)
    save_table(tuned.table, path)
    return tuned.module, {"recipe": tuned.entries()}


def _ranges(module: Module, *, samples: Iterable[Any], method: str, mask: str) -> Table:
    """The calibration table of a module over the samples."""
    masking = masking_by(module.graph, mask) if mask else None
    taps = open_taps_of(module)
    (table,) = calibrate(module, samples, taps, [method], masking=masking).values()
    return table


def _similarities(deployed: Module, reference: Module, samples: Iterable[Any]) -> dict[str, Any]:
    """Each output against the float one over the first samples; an exact one has no SQNR."""
    first = itertools.islice(samples, _CHECKED_SAMPLES)
    comparison, _ = check_against(deployed, reference, first, (0.0, 0.0), every_value=False)
    return similarity_entries(comparison.rows)
