"""Runs any stage of a module under onnxruntime, with taps on any value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from compiler.diagnostics import QdqcError, suggestion
from compiler.ir.clone import clone
from compiler.ir.core import Value
from compiler.ir.graph import Module
from compiler.ir.types import Quant, TensorType
from compiler.onnx_io.exporter import export_onnx
from compiler.ops import Dequantize
from compiler.quant.arithmetic import dequantize
from compiler.quant.lowering import is_lowered, lower

__all__ = ["Feeds", "Runner", "open_session", "session_options"]

Feeds: TypeAlias = Mapping[str, npt.NDArray[Any]]

_QUIET = 3
"""onnxruntime's log severity 'error': its warnings speak of things that users can't change."""

_LEVELS = {
    "off": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


def session_options(*, optimise: str = "all", threads: int = 0) -> ort.SessionOptions:
    """Options of a CPU session; ``threads`` 0 leaves the number to onnxruntime."""
    options = ort.SessionOptions()
    options.graph_optimization_level = _LEVELS[optimise]
    options.log_severity_level = _QUIET
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    if threads:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def open_session(
    model: onnx.ModelProto | str, *, optimise: str = "all", threads: int = 0
) -> ort.InferenceSession:
    """A CPU session of a model or of a file. Raises QdqcError where onnxruntime refuses it."""
    source = model if isinstance(model, str) else model.SerializeToString()
    try:
        return ort.InferenceSession(
            source,
            session_options(optimise=optimise, threads=threads),
            providers=["CPUExecutionProvider"],
        )
    except Exception as error:
        raise QdqcError(
            f"onnxruntime can't load the model: {_first_line(error)}",
            file=model if isinstance(model, str) else None,
            notes=["check it with onnx.checker, or import it with model_transform to see more"],
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


@dataclass(frozen=True)
class _Tap:
    """What is fetched for a name: the value itself, or integers that are dequantized here."""

    fetched: str
    quant: Quant | None


class Runner:
    """A module as onnxruntime runs it. Results are float where the IR's numbers are.

    ``taps`` are names of values beside the graph's outputs. In a quantized module a tap goes on
    the integer tensor and is dequantized here: fetching the float view would make a float
    kernel of an integer one.
    """

    def __init__(
        self,
        module: Module,
        taps: Iterable[str] = (),
        *,
        optimise: str = "all",
        threads: int = 0,
    ) -> None:
        lowered = module
        if not is_lowered(module):
            lowered = clone(module)
            lower(lowered)
        self.inputs = [v.name for v in lowered.graph.inputs]
        self.outputs = [v.name for v in lowered.graph.outputs]
        self._taps = {name: _tap(lowered, name) for name in dict.fromkeys(taps)}
        proto = export_onnx(lowered)
        held = {o.name for o in proto.graph.output}
        for tap in self._taps.values():
            if tap.fetched not in held and tap.fetched not in self.inputs:
                proto.graph.output.append(onnx.ValueInfoProto(name=tap.fetched))
                held.add(tap.fetched)
        self._session = open_session(proto, optimise=optimise, threads=threads)

    def run(self, feeds: Feeds) -> dict[str, npt.NDArray[Any]]:
        """Outputs and taps by name for one batch of inputs. Raises QdqcError."""
        needed = {n: np.asarray(feeds[n]) for n in self._need(feeds)}
        fetched = [*self.outputs, *(t.fetched for t in self._taps.values())]
        wanted = [n for n in dict.fromkeys(fetched) if n not in needed]
        try:
            values = [np.asarray(v) for v in self._session.run(wanted, needed)]
        except Exception as error:
            raise QdqcError(f"onnxruntime can't run the model: {_first_line(error)}") from error
        found = dict(zip(wanted, values, strict=True)) | needed
        out = {n: found[n] for n in self.outputs}
        for name, tap in self._taps.items():
            value = found[tap.fetched]
            out[name] = value if tap.quant is None else dequantize(value, tap.quant)
        return out

    def _need(self, feeds: Feeds) -> Sequence[str]:
        for name in self.inputs:
            if name not in feeds:
                raise QdqcError(
                    f"the input '{name}' is not given{suggestion(name, feeds)}",
                    notes=[f"inputs are {', '.join(self.inputs)}"],
                )
        return self.inputs


def _tap(module: Module, name: str) -> _Tap:
    value: Value | None = module.value(name)
    if value is None:
        value = module.value(f"{name}_q")
    if value is None:
        raise QdqcError(f"no value '%{name}' to look at{suggestion(name, module.value_names())}")
    producer = value.producer
    if producer is not None and isinstance(producer.op, Dequantize):
        value = producer.need("x")
    quant = value.type.quant if isinstance(value.type, TensorType) else None
    return _Tap(value.name, quant)
