"""What each value of a module costs, by onnxruntime's own profile."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from qdqc.ir.clone import clone
from qdqc.ir.graph import Module
from qdqc.onnx_io.exporter import export_parts
from qdqc.onnx_io.reader import read_model
from qdqc.onnx_io.rooted import rooted_model
from qdqc.quant.lowering import lower
from qdqc.runtime.sessions.places import name_by_place, places_in
from qdqc.runtime.sessions.session import Feeds
from qdqc.runtime.timing.latency import kernel_times
from qdqc.scratch import scratch_folder

__all__ = ["node_times"]

_RUNS = 10


def node_times(
    module: Module,
    feeds: Feeds,
    *,
    threads: int = 1,
    runs: int = _RUNS,
    optimise: str = "extended",
) -> dict[str, float]:
    """Seconds a run by the value that a kernel makes; medians over runs, casts among them.

    A value that the module holds in parts (its integers, a product before its bias) has the
    seconds of all of them. Kernels that onnxruntime fused bear the last value that they make;
    those of its own making have their own name. Its rewrites are by default those of the level
    "extended", as in the audit.
    """
    lowered = clone(module)
    values = lower(lowered)
    proto = rooted_model(lowered)
    owner = _owners(export_parts(lowered))
    made = [_first(node.output) for node in name_by_place(proto.graph.node)]
    with scratch_folder("times") as folder:
        file = Path(folder) / "optimised.onnx"
        kernels = kernel_times(
            proto, feeds, threads=threads, runs=runs, optimise=optimise, optimised=str(file)
        )
        graph = read_model(file).graph
        tensors = {kernel.name: _first(kernel.output) for kernel in graph.node}
    known = {name for node in proto.graph.node for name in node.output}
    times: dict[str, float] = {}
    for (_, kernel), seconds in kernels.items():
        tensor = tensors.get(kernel, "")
        places = places_in(kernel)
        if tensor not in known:  # a layout of onnxruntime's own: the node's name is left
            tensor = made[places[-1]] if places and places[-1] < len(made) else kernel
        name = values.value_of(owner.get(tensor, tensor))
        times[name] = times.get(name, 0.0) + seconds
    return times


def _first(names: Iterable[str]) -> str:
    return next((name for name in names if name), "")


def _owners(parts: Mapping[str, list[str]]) -> dict[str, str]:
    """The value of each tensor that is a part of one in the file."""
    return {tensor: name for name, tensors in parts.items() for tensor in tensors}
