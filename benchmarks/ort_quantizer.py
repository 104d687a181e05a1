"""The peer: onnxruntime's own static quantization, and sessions to run and read models with."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy.typing as npt
import onnx
import onnxruntime as ort

__all__ = [
    "CALIBRATORS",
    "Sample",
    "Samples",
    "collected_ranges",
    "fixed_model",
    "node_counts",
    "optimised",
    "prepared",
    "quantized",
    "session",
]

Sample: TypeAlias = Mapping[str, npt.NDArray[Any]]

CALIBRATORS = ("MinMax", "Entropy", "Percentile")
"""Names of onnxruntime's CalibrationMethod."""

_LEVELS = {
    "off": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
_QUIET = 3
"""onnxruntime's log severity for errors alone."""


class Samples:
    """Samples as onnxruntime's calibrators read them: one at a time, None at the end."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._left: Iterator[Sample] = iter(samples)

    def get_next(self) -> Sample | None:
        return next(self._left, None)


def session(
    model: Path | onnx.ModelProto, *, level: str = "all", threads: int = 0
) -> ort.InferenceSession:
    """A CPU session; ``level`` is off, basic, extended or all, ``threads`` 0 takes all cores."""
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    options = _options(level)
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def optimised(model: Path, out: Path, level: str) -> onnx.ModelProto:
    """The model as onnxruntime writes it after its optimisations of a level."""
    options = _options(level)
    options.optimized_model_filepath = str(out)
    ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    return onnx.load(str(out))


def node_counts(model: onnx.ModelProto) -> Counter[str]:
    """Nodes by op type, those of nested graphs with them; constants are not counted."""
    counts: Counter[str] = Counter()
    graphs = [model.graph]
    for graph in graphs:
        for node in graph.node:
            counts[node.op_type] += node.op_type != "Constant"
            graphs += [a.g for a in node.attribute if a.HasField("g")]
    return +counts


def fixed_model(model: Path, out: Path, symbol: str, size: int) -> Path:
    """The model with a symbolic dimension set to a size."""
    from onnxruntime.tools.onnx_model_utils import make_dim_param_fixed

    proto = onnx.load(str(model))
    make_dim_param_fixed(proto.graph, symbol, size)
    onnx.save(proto, str(out))
    return out


def prepared(model: Path, out: Path) -> Path:
    """The model after onnxruntime's own preparation for quantization.

    Its symbolic shape inference is left out: it needs another package, and these models have
    no shapes that it alone would find.
    """
    from onnxruntime.quantization.shape_inference import quant_pre_process

    quant_pre_process(model, out, skip_symbolic_shape=True)
    return out


def quantized(model: Path, out: Path, samples: Iterable[Sample]) -> Path:
    """A prepared model in QDQ form: u8 activations, s8 weights per channel, MinMax ranges."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    logging.getLogger().setLevel(logging.ERROR)  # it warns of each tensor that it leaves float
    quantize_static(
        model,
        out,
        Samples(samples),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        calibrate_method=CalibrationMethod.MinMax,
    )
    return out


def collected_ranges(model: Path, augmented: Path, samples: Iterable[Sample], method: str) -> int:
    """Ranges by one of onnxruntime's calibrators at its defaults; the number of tensors.

    The tensors are those that ``quantize_static`` would ask for.
    """
    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    calibrator = create_calibrator(
        model,
        sorted({*QLinearOpsRegistry, *QDQRegistry}),
        augmented_model_path=str(augmented),
        calibrate_method=CalibrationMethod[method],
    )
    calibrator.collect_data(Samples(samples))
    return len(calibrator.compute_data().data)


def _options(level: str) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.graph_optimization_level = _LEVELS[level]
    options.log_severity_level = _QUIET
    return options
