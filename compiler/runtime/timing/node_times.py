"""What each value of a module costs, by onnxruntime's own profile."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import onnx

from qdqc.ir.clone import clone
from qdqc.ir.graph import Module
from qdqc.onnx_io.exporter import export_parts
from qdqc.onnx_io.reader import read_model
from qdqc.onnx_io.rooted import rooted_model
from qdqc.quant.lowering import lower
from qdqc.runtime.sessions.places import blocked_tensor, name_by_place, places_in
from qdqc.runtime.sessions.session import Feeds
from qdqc.runtime.timing.latency import Kernels, profile_models
from qdqc.scratch import scratch_folder

__all__ = ["node_times", "profile_nodes"]

_RUNS = 10


def node_times(
    module: Module,
    feeds: Feeds,
    *,
    threads: int = 1,
    runs: int = _RUNS,
    optimise: str = "extended",
) -> dict[str, float]:
    """Seconds a run by the value that a kernel makes: ``profile_nodes`` of one module."""
    modules, options = {"": module}, {"threads": threads, "runs": runs}
    return profile_nodes(modules, feeds, **options, optimise=optimise)[""]


def profile_nodes(
    modules: Mapping[str, Module],
    feeds: Feeds,
    *,
    threads: int = 1,
    runs: int = _RUNS,
    optimise: str = "extended",
) -> dict[str, dict[str, float]]:
    """Seconds a run by the value that a kernel makes, casts among them, of several modules.

    They take turns (``profile_models``). A value that a module holds in parts (its integers, a
    product before its bias) has the seconds of all of them. Kernels that onnxruntime fused bear
    the last value that they make, convolutions in its own layout the first; those of its own
    making have their own name. Its rewrites are by default those of the level "extended", as in
    the audit.
    """
    lowered = {name: clone(module) for name, module in modules.items()}
    values = {name: lower(module) for name, module in lowered.items()}
    protos = {name: rooted_model(module) for name, module in lowered.items()}
    made = {
        n: [_first(node.output) for node in name_by_place(p.graph.node)] for n, p in protos.items()
    }
    times: dict[str, dict[str, float]] = {}
    with scratch_folder("times") as folder:
        files = {name: str(Path(folder) / f"{n}.onnx") for n, name in enumerate(protos)}
        profiles = profile_models(
            protos,
            dict.fromkeys(protos, feeds),
            threads=threads,
            runs=runs,
            optimise=optimise,
            optimised=files,
        )
        for name, kernels in profiles.items():
            owner = _owners(export_parts(lowered[name]))
            tensors = _tensors(kernels, files[name], protos[name], made[name])
            times[name] = {}
            for (_, kernel), seconds in kernels.items():
                value = values[name].value_of(owner.get(tensors[kernel], tensors[kernel]))
                times[name][value] = times[name].get(value, 0.0) + seconds
    return times


def _tensors(
    kernels: Kernels, file: str, proto: onnx.ModelProto, made: list[str]
) -> dict[str, str]:
    """The tensor that each kernel gives, by its name; ``made`` are those of the nodes by place."""
    first = {kernel.name: _first(kernel.output) for kernel in read_model(Path(file)).graph.node}
    known = {name for node in proto.graph.node for name in node.output}
    tensors: dict[str, str] = {}
    for _, kernel in kernels:
        tensor = first.get(kernel, "")
        places = places_in(kernel)
        if tensor not in known:  # a layout of onnxruntime's own: the node's name is left
            tensor = made[places[-1]] if places and places[-1] < len(made) else kernel
            tensor = blocked_tensor(kernel) or tensor
        tensors[kernel] = tensor
    return tensors


def _first(names: Iterable[str]) -> str:
    return next((name for name in names if name), "")


def _owners(parts: Mapping[str, list[str]]) -> dict[str, str]:
    """The value of each tensor that is a part of one in the file."""
    return {tensor: name for name, tensors in parts.items() for tensor in tensors}
