"""Bad fusions: where onnxruntime's integer kernels do not compute what the casts say.

A deployed model runs once as it will run. Then every stretch between two integer tensors runs
again, by itself and without optimisations, on the integers that the first run gave it: a right
kernel differs by a rounding, and errors of earlier ones do not pile up.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, ValueInfoProto

from qdqc.runtime.sessions.session import Feeds, open_session

__all__ = ["STEPS", "BadFusion", "bad_fusions"]

STEPS = 3.0
"""Larger differences, in steps of a result's integers, are no matter of rounding."""


@dataclass(frozen=True)
class BadFusion:
    """A value that comes out otherwise than its ops say, by up to ``steps`` of its integers."""

    name: str
    op: str
    steps: float


def bad_fusions(model: str | Path, feeds: Feeds) -> list[BadFusion]:
    """Values of a QDQ model that onnxruntime's optimisations change, in graph order.

    A step is one of the integers; of a float result it is 1/255 of its extent. Values inside
    nested graphs are not looked at. Raises QdqcError where onnxruntime can't load the model.
    """
    proto = onnx.load(str(model), load_external_data=False)
    stored = _integers(proto)
    folder = str(Path(model).resolve().parent)
    results = [o.name for o in proto.graph.output]
    names = [*(n for n in stored if n not in results), *results]
    fast = open_session(_returning(proto, names), threads=1, folder=folder)
    given = {i.name: np.asarray(feeds[i.name]) for i in fast.get_inputs()}
    fused = dict(zip(names, fast.run(names, given), strict=True))
    cut = _cut(proto, stored)
    plain = open_session(_returning(cut, names), optimise="off", threads=1, folder=folder)
    values = given | {f"{n}_given": fused[n] for n in stored}
    wanted = {i.name for i in plain.get_inputs()}
    exact = plain.run(names, {n: a for n, a in values.items() if n in wanted})
    bad: list[BadFusion] = []
    for name, value in zip(names, exact, strict=True):
        steps = _steps(np.asarray(fused[name]), np.asarray(value))
        if steps > STEPS:
            bad.append(BadFusion(*_shown_name(proto, name), steps))
    return bad


def _integers(proto: onnx.ModelProto) -> dict[str, int]:
    """8-bit results of QuantizeLinear nodes, with their element type."""
    constants = {t.name: t for t in proto.graph.initializer}
    integers: dict[str, int] = {}
    for node in proto.graph.node:
        if node.op_type == "QuantizeLinear":
            zero = constants.get(node.input[2]) if len(node.input) > 2 else None
            elem = TensorProto.UINT8 if zero is None else zero.data_type
            if elem in (TensorProto.UINT8, TensorProto.INT8):
                integers[node.output[0]] = elem
    return integers


def _returning(proto: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """The model with these values as further outputs."""
    out = onnx.ModelProto()
    out.CopyFrom(proto)
    returned = {o.name for o in out.graph.output}
    out.graph.output.extend(ValueInfoProto(name=n) for n in names if n not in returned)
    return out


def _cut(proto: onnx.ModelProto, stored: dict[str, int]) -> onnx.ModelProto:
    """The model whose readers of integer tensors take them as inputs ``{name}_given``."""
    out = onnx.ModelProto()
    out.CopyFrom(proto)
    for node in out.graph.node:
        for index, name in enumerate(node.input):
            if name in stored:
                node.input[index] = f"{name}_given"
    for name, elem in stored.items():
        given = out.graph.input.add(name=f"{name}_given")
        given.type.tensor_type.elem_type = elem
    return out


def _steps(fused: npt.NDArray[Any], exact: npt.NDArray[Any]) -> float:
    """The largest difference in steps; infinite where shapes differ or numbers are no numbers."""
    if fused.shape != exact.shape:
        return float("inf")
    if not exact.size or exact.dtype.kind not in "iuf":
        return 0.0
    a, b = fused.astype(np.float64), exact.astype(np.float64)
    if exact.dtype.kind != "f":
        return float(np.abs(a - b).max()) if exact.dtype.itemsize == 1 else 0.0
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if same.all():
        return 0.0
    finite = np.isfinite(b)
    extent = float(np.ptp(b[finite])) if finite.any() else 0.0
    with np.errstate(invalid="ignore"):
        worst = float(np.where(same, 0.0, np.abs(a - b)).max())
    return worst / (extent / 255) if extent > 0 and np.isfinite(worst) else float("inf")


def _shown_name(proto: onnx.ModelProto, name: str) -> tuple[str, str]:
    """What people call a tensor of integers: its float view, and the op that made it."""
    makers = {o: n for n in proto.graph.node for o in n.output}
    views = [n.output[0] for n in proto.graph.node if name in n.input[:1]]
    node = makers.get(name)
    if node is None or node.op_type != "QuantizeLinear":
        return name, "" if node is None else node.op_type
    source = makers.get(node.input[0])
    return (views[0] if views else name), source.op_type if source is not None else node.op_type
