"""Runs any stage of a module under onnxruntime, with taps on any value."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from qdqc.diagnostics import QdqcError, suggestion
from qdqc.ir.clone import clone
from qdqc.ir.graph import Module
from qdqc.onnx_io.exporter import build_model
from qdqc.onnx_io.tensors import to_tensor_proto
from qdqc.quant.arithmetic import quantize
from qdqc.quant.lowered import Lowered
from qdqc.quant.lowering import is_lowered, lower
from qdqc.rewrite.driver import erase_dead
from qdqc.runtime.sessions.fetch import fetch
from qdqc.runtime.sessions.shared_weights import Weights
from qdqc.runtime.sessions.taps import Tap, observable, tap_of

__all__ = ["Feeds", "Runner", "first_line", "open_session", "session_options"]

Feeds: TypeAlias = Mapping[str, npt.NDArray[Any]]

_QUIET = 4
"""onnxruntime's log severity 'fatal': its errors come up as exceptions, and are told once."""

_NOISE = re.compile(
    r"^\[ONNXRuntimeError\] : \d+ : \w+ : (?:Load model from .*? failed:)?"
    r"(?:\S*/onnxruntime/\S+:\d+ .*\) )?"
)

_DATA_FOLDER = "session.model_external_initializers_file_folder_path"

_LEVELS = {
    "off": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


def session_options(
    *, optimise: str = "all", threads: int = 0, lean: bool = False
) -> ort.SessionOptions:
    """Options of a CPU session; ``threads`` 0 leaves the number to onnxruntime.

    ``lean`` gives memory back after each run, where time matters less.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = _LEVELS[optimise]
    options.log_severity_level = _QUIET
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = options.enable_mem_pattern = not lean
    if threads:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def open_session(
    model: onnx.ModelProto | str,
    *,
    optimise: str = "all",
    threads: int = 0,
    lean: bool = False,
    folder: str | None = None,
    profile: str | None = None,
    shared: Mapping[str, ort.OrtValue] = {},
    optimised: str | None = None,
) -> ort.InferenceSession:
    """A CPU session of a model or of a file; ``folder`` is where a model's external data lie.

    ``profile`` begins the name of the file that ``end_profiling`` writes; ``optimised`` is a
    file that gets the model as onnxruntime rewrites it. ``shared`` are constants that the model
    leaves out. Raises QdqcError where onnxruntime refuses it.
    """
    source = model if isinstance(model, str) else model.SerializeToString()
    options = session_options(optimise=optimise, threads=threads, lean=lean)
    if optimised is not None:
        options.optimized_model_filepath = optimised
    if folder is not None:
        options.add_session_config_entry(_DATA_FOLDER, folder)
    if shared:
        options.add_external_initializers(list(shared), list(shared.values()))
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, profile
    try:
        # Without the fallback onnxruntime prints nothing of its own to stdout.
        return ort.InferenceSession(
            source, options, providers=["CPUExecutionProvider"], enable_fallback=False
        )
    except Exception as error:
        raise QdqcError(
            f"onnxruntime can't load the model: {first_line(error)}",
            file=model if isinstance(model, str) else None,
            notes=["check it with onnx.checker, or import it with model_transform to see more"],
        ) from error


def first_line(error: Exception) -> str:
    """What onnxruntime says, without its codes, its source lines and the lines that follow."""
    text = str(error).strip().partition("\n")[0]
    return _NOISE.sub("", text).strip() or type(error).__name__


class Runner:
    """A module as onnxruntime runs it. Results are float where the IR's numbers are.

    ``taps`` are names of values beside the graph's outputs; None takes all that can be looked
    at. In a quantized module a tap goes on the integer tensor and is dequantized here: fetching
    the float view would make a float kernel of an integer one. ``fixed`` gives stored integers,
    of outputs as well. ``cut`` runs no more than the taps need, and gives no outputs beside.
    ``lean`` is that of ``session_options``. Runners that are given the same ``weights`` share
    their constants; ``opset`` is the one that the module is written at, by default the lowest.
    """

    def __init__(
        self,
        module: Module,
        taps: Iterable[str] | None = (),
        *,
        optimise: str = "all",
        threads: int = 0,
        fixed: bool = False,
        cut: bool = False,
        lean: bool = False,
        weights: Weights | None = None,
        opset: int | None = None,
    ) -> None:
        lowered, parts = module, Lowered()
        if not is_lowered(module) or cut:
            lowered = clone(module)
        if not is_lowered(module):
            parts = lower(lowered)
        self.inputs = [v.name for v in lowered.graph.inputs]
        quantized = ((v.name, v.tensor) for v in lowered.graph.inputs if v.quant is not None)
        self._stored = {name: (t.quant, t.elem) for name, t in quantized}
        self.outputs = [] if cut else [v.name for v in module.graph.outputs]
        self._fixed = fixed
        self._taps = observable(lowered) if taps is None else {}
        floats = [] if fixed else [v for v in lowered.graph.outputs if v.quant is None]
        direct = {v.name for v in floats}
        for name in (*(taps or ()), *self.outputs):
            tensor = parts.of(name).stored or name
            self._taps[name] = Tap(name) if name in direct else tap_of(lowered, tensor)
        if cut:
            _cut(lowered, [t.fetched for t in self._taps.values()])
        proto = build_model(lowered, opset, False, weights.place if weights else to_tensor_proto)
        fetchable = {o.name for o in proto.graph.output}
        for tap in self._taps.values():
            if tap.fetched not in fetchable and tap.fetched not in self.inputs:
                proto.graph.output.append(onnx.ValueInfoProto(name=tap.fetched))
                fetchable.add(tap.fetched)
        shared = weights.take() if weights else {}
        self._session = open_session(
            proto, optimise=optimise, threads=threads, lean=lean, shared=shared
        )

    def run(self, feeds: Feeds) -> dict[str, npt.NDArray[Any]]:
        """Taps and outputs by name for one batch of inputs. Raises QdqcError.

        An input that is quantized takes its integers, or floats, which are rounded.
        """
        needed = {n: self._given(n, np.asarray(feeds[n])) for n in self._need(feeds)}
        fetched = dict.fromkeys(t.fetched for t in self._taps.values())
        wanted = [n for n in fetched if n not in needed]
        try:
            values = [np.asarray(v) for v in fetch(self._session, wanted, needed)] if wanted else []
        except Exception as error:
            raise QdqcError(f"onnxruntime can't run the model: {first_line(error)}") from error
        arrays = dict(zip(wanted, values, strict=True)) | needed
        taps = self._taps.items()
        return {name: tap.shown(arrays[tap.fetched], fixed=self._fixed) for name, tap in taps}

    def _given(self, name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        quant, elem = self._stored.get(name, (None, None))
        if quant is None or elem is None or array.dtype.kind != "f":
            return array
        return quantize(array, quant, elem)

    def _need(self, feeds: Feeds) -> Sequence[str]:
        for name in self.inputs:
            if name not in feeds:
                raise QdqcError(
                    f"the input '{name}' is not given{suggestion(name, feeds)}",
                    notes=[f"inputs are {', '.join(self.inputs)}"],
                )
        return self.inputs


def _cut(module: Module, names: Iterable[str]) -> None:
    """Leave what makes these values. Inputs stay, and a graph that makes none of them."""
    values = [v for v in map(module.value, names) if v is not None and not v.is_input]
    if values:
        module.graph.set_outputs(values)
        erase_dead(reversed(list(module.graph.nodes())))
