"""Spellings of old ONNX opsets, turned into the present one before the table of ops is asked.

An adapter gets a node and returns it adapted, or None where the node says something that no
native op says. Sources: the ONNX operator changelog.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from qdqc.ir.core import Constant, Value
from qdqc.ir.data import Data
from qdqc.ir.graph import Module

__all__ = ["SPELLINGS", "Spelt"]


@dataclass
class Spelt:
    """An ONNX node in plain terms.

    ``version`` is the opset in force, ``results`` counts results up to the last one that is
    used, ``name`` is that of the first result.
    """

    type: str
    domain: str
    version: int
    attrs: dict[str, Any]
    operands: list[Value | None]
    results: int
    name: str
    graphs: tuple[str, ...] = ()


Adapter: TypeAlias = Callable[[Spelt, Module], Spelt | None]


def _constant(spelt: Spelt, module: Module, label: str, array: npt.ArrayLike) -> Constant:
    name = module.fresh_name(f"{spelt.name}_{label}")
    return module.add_constant(name, Data.of(np.asarray(array)))


def _operand(spelt: Spelt, index: int) -> Value | None:
    return spelt.operands[index] if index < len(spelt.operands) else None


def _rank(spelt: Spelt) -> int | None:
    first = _operand(spelt, 0)
    return None if first is None or first.shape is None else len(first.shape)


def _attrs_to_inputs(until: int, names: Sequence[tuple[str, int]], since: int) -> Adapter:
    """Before opset ``until`` the named attributes stand for int64 inputs at these positions."""

    def adapt(spelt: Spelt, module: Module) -> Spelt | None:
        if spelt.version >= until:
            return spelt
        operands = list(spelt.operands)
        for name, index in names:
            if name not in spelt.attrs:
                continue
            array = np.asarray(spelt.attrs.pop(name), dtype=np.int64)
            array = array.reshape(-1)
            operands.extend([None] * (index + 1 - len(operands)))
            operands[index] = _constant(spelt, module, name, array)
        return replace(spelt, operands=operands, version=since)

    return adapt


def _pad(spelt: Spelt, module: Module) -> Spelt | None:
    if spelt.version >= 11:
        return spelt
    first = _operand(spelt, 0)
    if first is None or first.elem is None:
        return None
    pads = np.asarray(spelt.attrs.pop("pads", ()), dtype=np.int64)
    operands: list[Value | None] = [first, _constant(spelt, module, "pads", pads)]
    value = float(spelt.attrs.pop("value", 0.0))
    if value:
        fill = np.asarray(value).astype(first.elem.dtype)
        operands.append(_constant(spelt, module, "value", fill))
    return replace(spelt, operands=operands, version=11)


def _softmax(spelt: Spelt, _module: Module) -> Spelt | None:
    """Before opset 13 the input is taken as a matrix, cut at ``axis`` (default 1)."""
    if spelt.version >= 13:
        return spelt
    rank = _rank(spelt)
    axis = spelt.attrs.get("axis", 1)
    if rank is None or axis not in (-1, rank - 1):
        return None
    return replace(spelt, attrs={**spelt.attrs, "axis": -1}, version=13)


def _dropout(spelt: Spelt, _module: Module) -> Spelt | None:
    training = _operand(spelt, 2)
    if training is not None:
        if not isinstance(training, Constant) or training.data.is_elided:
            return None
        if training.data.array().any():
            return None
    if spelt.results > 1:
        return None
    return Spelt("Identity", "", spelt.version, {}, spelt.operands[:1], 1, spelt.name)


def _batch_norm(spelt: Spelt, _module: Module) -> Spelt | None:
    """Inference only; ``spatial = 0`` (before opset 9) means statistics for every pixel."""
    spatial, training = spelt.attrs.pop("spatial", 1), spelt.attrs.pop("training_mode", 0)
    return spelt if spatial and not training else None


def _upsample(spelt: Spelt, module: Module) -> Spelt | None:
    """Upsample is Resize with asymmetric coordinates; nearest takes the pixel below."""
    scales = _operand(spelt, 1)
    if spelt.version < 9:
        listed = np.asarray(spelt.attrs.pop("scales", ()), dtype=np.float32)
        scales = _constant(spelt, module, "scales", listed)
    if scales is None:
        return None
    attrs = {
        "mode": spelt.attrs.get("mode", "nearest"),
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "floor",
    }
    return Spelt("Resize", "", 13, attrs, [spelt.operands[0], None, scales], 1, spelt.name)


def _resize(spelt: Spelt, module: Module) -> Spelt | None:
    """Opset 10 has scales as its second input, and coordinates as Upsample has them."""
    if spelt.version == 10:
        return _upsample(spelt, module)
    operands = [None if _is_empty(v) and i else v for i, v in enumerate(spelt.operands)]
    return replace(spelt, operands=operands)


def _is_empty(value: Value | None) -> bool:
    """Before opset 13 an input that is not given may be spelt as a tensor of no elements."""
    return isinstance(value, Constant) and value.data.size == 0


def _clip(spelt: Spelt, _module: Module) -> Spelt | None:
    """Before opset 11 a missing bound was spelt as the largest float32."""
    if spelt.version < 11:
        largest = float(np.finfo(np.float32).max)
        if spelt.attrs.get("max", 0.0) >= largest * (1 - 1e-6):
            del spelt.attrs["max"]
        if spelt.attrs.get("min", 0.0) <= -largest * (1 - 1e-6):
            del spelt.attrs["min"]
    return spelt


def _gemm(spelt: Spelt, _module: Module) -> Spelt | None:
    spelt.attrs.pop("broadcast", None)
    return spelt


def _scan(spelt: Spelt, _module: Module) -> Spelt | None:
    """Before opset 9 Scan had a batch dimension and lengths."""
    return spelt if spelt.version >= 9 else None


def _group_norm(spelt: Spelt, _module: Module) -> Spelt | None:
    """Before opset 21 scale and bias hold one number per group instead of per channel."""
    return spelt if spelt.version >= 21 else None


def _grid_sample(spelt: Spelt, _module: Module) -> Spelt | None:
    """Before opset 20 the modes had the names of their two-dimensional forms."""
    modes = {"bilinear": "linear", "bicubic": "cubic"}
    mode = spelt.attrs.get("mode", "bilinear")
    return replace(spelt, attrs={**spelt.attrs, "mode": modes.get(mode, mode)}, version=20)


def _roi_align(spelt: Spelt, _module: Module) -> Spelt | None:
    """Before opset 16 coordinates were those of ``output_half_pixel``."""
    if spelt.version >= 16:
        return spelt
    attrs = {**spelt.attrs, "coordinate_transformation_mode": "output_half_pixel"}
    return replace(spelt, attrs=attrs, version=16)


def _dft(spelt: Spelt, module: Module) -> Spelt | None:
    """Before opset 20 the axis was an attribute, which counted from the front."""
    if spelt.version >= 20:
        return spelt
    axis = _constant(spelt, module, "axis", np.int64(spelt.attrs.pop("axis", 1)))
    length = _operand(spelt, 1)
    return replace(spelt, operands=[spelt.operands[0], length, axis], version=20)


def _scatter(spelt: Spelt, _module: Module) -> Spelt | None:
    """Before opset 11 ScatterElements had a shorter name."""
    return replace(spelt, type="ScatterElements", version=11)


SPELLINGS: dict[str, Adapter] = {
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "DFT": _dft,
    "Dropout": _dropout,
    "Gemm": _gemm,
    "GridSample": _grid_sample,
    "GroupNormalization": _group_norm,
    "Hardmax": _softmax,
    "LogSoftmax": _softmax,
    "Pad": _pad,
    "Reshape": _attrs_to_inputs(5, (("shape", 1),), 5),
    "Resize": _resize,
    "Scan": _scan,
    "RoiAlign": _roi_align,
    "Scatter": _scatter,
    "Slice": _attrs_to_inputs(10, (("starts", 1), ("ends", 2), ("axes", 3)), 10),
    "Softmax": _softmax,
    "TopK": _attrs_to_inputs(10, (("k", 1),), 10),
    "Upsample": _upsample,
}
