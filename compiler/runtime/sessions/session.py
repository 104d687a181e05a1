"""Runs any stage of a module under onnxruntime, with taps on any value."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from qdqc.diagnostics import QdqcError, suggestion
from qdqc.ir.clone import clone
from qdqc.ir.graph import Module
from qdqc.onnx_io.exporter import build_model
from qdqc.onnx_io.rooted import ROOT, rooted_file, rooted_tensor, weight_numbers
from qdqc.onnx_io.structure import all_nodes
from qdqc.quant.arithmetic import quantize
from qdqc.quant.lowered import Lowered
from qdqc.quant.lowering import is_lowered, lower
from qdqc.rewrite.driver import erase_dead
from qdqc.runtime.sessions.empty import EmptySteps
from qdqc.runtime.sessions.fetch import fetch
from qdqc.runtime.sessions.sequences import as_given, flattened
from qdqc.runtime.sessions.shared_weights import Weights
from qdqc.runtime.sessions.taps import Tap, observable, tap_of
from qdqc.runtime.sessions.watch import check_rounds, has_loops, run_watched

__all__ = ["Feeds", "Runner", "first_line", "open_session", "session_options"]

Feeds: TypeAlias = Mapping[str, Any]
"""An array for each input by name; a list of arrays where it is a sequence."""

_QUIET = 4
"""onnxruntime's log severity 'fatal': its errors come up as exceptions, and are told once."""

_NOISE = re.compile(
    r"^\[ONNXRuntimeError\] : \d+ : \w+ : (?:Load model from .*? failed:)?"
    r"(?:\S*/onnxruntime/\S+:\d+ .*\) )?"
)

_DATA_FOLDER = "session.model_external_initializers_file_folder_path"

LARGE = 512 << 20
"""Bytes that the weights of a model take in float32 from which on a session copies none."""

_COPIERS = ["NchwcTransformer"]
"""Rewrites of onnxruntime that bring all weights into another layout."""

_ROUNDING = frozenset({"QuantizeLinear", "DynamicQuantizeLinear"})

_FOLDED = "optimization.constant_folding_max_output_size_in_bytes"
_SMALL = 1 << 20
"""Bytes of a constant that onnxruntime may make of others in a large model."""

_OPTIMISED = "session.optimized_model_external_initializers"
_DATA_FROM = 1 << 16
"""Bytes from which on a tensor of an optimised model goes into a file of its own."""

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
    profile: str | None = None,
    shared: Mapping[str, ort.OrtValue] = {},
    optimised: str | None = None,
    file: str | None = None,
) -> ort.InferenceSession:
    """A CPU session of a file, or of a model whose external data are counted from the root.

    Constants stay in their files. Those of a ``LARGE`` model are not copied into another layout
    either, and what is computed is given back at once: it runs slower, within little memory.
    ``profile`` begins the name of the file that ``end_profiling`` writes; ``optimised`` is a
    file that gets the model as onnxruntime rewrites it. ``shared`` are constants that the model
    leaves out, ``file`` is what an error names. Raises QdqcError where onnxruntime refuses it.
    """
    proto = rooted_file(Path(model)) if isinstance(model, str) else model
    options = session_options(optimise=optimise, threads=threads, lean=lean)
    large = 4 * weight_numbers(proto) > LARGE
    if large:
        _stay_small(options, proto, whole=optimised is not None)
    options.add_session_config_entry(_FOLDED, str(_SMALL if large else LARGE))
    if optimised is not None:
        options.optimized_model_filepath = optimised
        options.add_session_config_entry(f"{_OPTIMISED}_file_name", f"{Path(optimised).name}.data")
        options.add_session_config_entry(f"{_OPTIMISED}_min_size_in_bytes", str(_DATA_FROM))
    options.add_session_config_entry(_DATA_FOLDER, str(ROOT))
    if shared:
        options.add_external_initializers(list(shared), list(shared.values()))
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, profile
    try:
        # Without the fallback onnxruntime prints nothing of its own to stdout.
        return ort.InferenceSession(
            proto.SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
            enable_fallback=False,
            disabled_optimizers=[*(_COPIERS if large else ()), *_ending(proto.graph)] or None,
        )
    except Exception as error:
        raise QdqcError(
            f"onnxruntime can't load the model: {first_line(error)}",
            file=model if isinstance(model, str) else file,
            notes=["check it with onnx.checker, or import it with model_transform to see more"],
        ) from error


def _stay_small(options: ort.SessionOptions, model: onnx.ModelProto, *, whole: bool) -> None:
    """Let a session copy none of its weights, as far as onnxruntime can be told not to.

    Nodes run in the order of the file: dequantized weights would all be made first otherwise.
    Without activations in integers only the first level of rewrites runs, unless ``whole``: the
    next makes copies of weights in 8 and 4 bits, and brings that order into disorder.
    """
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    floats = not any(n.op_type in _ROUNDING for n in model.graph.node)
    if floats and not whole and options.graph_optimization_level != _LEVELS["off"]:
        options.graph_optimization_level = _LEVELS["basic"]


def _ending(graph: onnx.GraphProto) -> list[str]:
    """The rewrites of onnxruntime that would end the process over this graph (1.32).

    It does over a Transpose, a Cast and a MatMul one behind the other, as the pass move-casts
    says, and makes that Cast itself where half precision is.
    """
    nodes = list(all_nodes(graph.node))
    casts = [n for n in nodes if n.op_type == "Cast"]
    moved = {name for n in nodes if n.op_type == "Transpose" for name in n.output}
    ends = {name for n in casts if not moved.isdisjoint(n.input) for name in n.output}
    types = {t.data_type for t in graph.initializer} | {a.i for n in casts for a in n.attribute}
    types |= {v.type.tensor_type.elem_type for v in graph.input}
    if onnx.TensorProto.FLOAT16 in types:
        ends |= moved
    ended = any(n.op_type == "MatMul" and not ends.isdisjoint(n.input) for n in nodes)
    return ["MatmulTransposeFusion"] if ended else []


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
        check_rounds(module)
        self._steps = EmptySteps(module)
        self._watched = has_loops(module)
        lowered, parts = module, Lowered()
        if not is_lowered(module) or cut:
            lowered = clone(module)
        if not is_lowered(module):
            parts = lower(lowered)
        self.inputs = [v.name for v in lowered.graph.inputs]
        self._no_tensors = {v.name for v in lowered.graph.inputs if v.elem is None}
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
        proto = build_model(lowered, opset, False, weights.place if weights else rooted_tensor)
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

        An input that is quantized takes its integers, or floats, which are rounded; a sequence
        is a list of arrays, and comes out as ``flattened`` has it.
        """
        self.check(feeds)
        needed = {n: self._given(n, feeds[n]) for n in self._need(feeds)}
        fetched = dict.fromkeys(t.fetched for t in self._taps.values())
        wanted = [n for n in fetched if n not in needed]
        try:
            values = self._values(wanted, needed) if wanted else []
        except QdqcError:
            raise
        except Exception as error:
            raise QdqcError(f"onnxruntime can't run the model: {first_line(error)}") from error
        every: dict[str, Any] = dict(zip(wanted, values, strict=True)) | needed
        taps = self._taps.items()
        return flattened(
            {name: tap.shown(every[tap.fetched], fixed=self._fixed) for name, tap in taps}
        )

    def call(self, feeds: Feeds) -> Callable[[], object]:
        """A run on these inputs and nothing besides, to be timed: results are not looked at."""
        self.check(feeds)
        needed = {n: self._given(n, feeds[n]) for n in self._need(feeds)}
        fetched = dict.fromkeys(t.fetched for t in self._taps.values())
        wanted = [n for n in fetched if n not in needed]
        return lambda: self._values(wanted, needed) if wanted else None

    def check(self, feeds: Feeds) -> None:
        """Raises QdqcError for inputs over which onnxruntime would end the process."""
        self._steps.check(feeds)

    def _values(self, wanted: list[str], needed: dict[str, Any]) -> Sequence[Any]:
        if self._watched:
            return run_watched(self._session, wanted, needed)
        return fetch(self._session, wanted, needed)

    def _given(self, name: str, value: Any) -> Any:
        if name in self._no_tensors:
            return as_given(value)
        array = np.asarray(value)
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
