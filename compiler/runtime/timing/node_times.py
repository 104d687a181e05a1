"""What each value of a module costs, by onnxruntime's own profile."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx

from qdqc.ir.clone import clone
from qdqc.ir.graph import Module
from qdqc.onnx_io.exporter import export_onnx
from qdqc.ops import Quantize
from qdqc.quant.lowering import lower
from qdqc.runtime.sessions.session import Feeds
from qdqc.runtime.timing.latency import kernel_times

__all__ = ["node_times"]

_RUNS = 10


def node_times(module: Module, feeds: Feeds, *, threads: int = 1) -> dict[str, float]:
    """Seconds a run by the value that a kernel makes; medians over runs, casts among them.

    Kernels that onnxruntime fused bear the last value that they make. Its rewrites are those of
    the level "extended", as in the audit.
    """
    lowered = clone(module)
    lower(lowered)
    proto = export_onnx(lowered)
    for place, node in enumerate(proto.graph.node):
        node.name = f"n{place}"
    with tempfile.TemporaryDirectory(prefix="qdqc-times-") as folder:
        made = Path(folder) / "optimised.onnx"
        times = kernel_times(
            proto,
            feeds,
            threads=threads,
            runs=_RUNS,
            optimise="extended",
            optimised=str(made),
        )
        kernels = onnx.load(str(made), load_external_data=False).graph.node
    makes = {k.name: _value(next((o for o in k.output if o), ""), module) for k in kernels}
    found: dict[str, float] = {}
    for (_, kernel), seconds in times.items():
        name = makes.get(kernel, "")
        found[name] = found.get(name, 0.0) + seconds
    return found


def _value(name: str, module: Module) -> str:
    """The value of the module that a tensor holds, or is a part of: ``y_q``, ``y_preact``."""
    short = name
    while module.value(short) is None or _is_stored(short, module):
        short, cut, _ = short.rpartition("_")
        if not cut:
            return name
    return short


def _is_stored(name: str, module: Module) -> bool:
    """Whether these are the integers of a value that has its own name in the module."""
    value = module.value(name)
    producer = None if value is None else value.producer
    stands_for = module.value(name.removesuffix("_q"))
    return producer is not None and isinstance(producer.op, Quantize) and stands_for is not value
