"""Runs a session on arrays, bf16 among them, which onnxruntime's Python interface does not take."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from qdqc.ir.types import Elem
from qdqc.ops.onnx_table import elem_code

__all__ = ["fetch"]

_NAME = "tensor(bfloat16)"


def fetch(
    session: ort.InferenceSession, wanted: Sequence[str] | None, feeds: Mapping[str, Any]
) -> list[Any]:
    """Values of the names, or all outputs, for arrays by the names of inputs.

    Arrays of bf16 go in and come out as memory that onnxruntime is told the type of.
    """
    infos = (*session.get_inputs(), *session.get_outputs())
    if all(info.type != _NAME for info in infos):
        return list(session.run(wanted, dict(feeds)))
    values = session.run_with_ort_values(wanted, {n: _value(a) for n, a in feeds.items()})
    return [_array(v) if v.data_type() == _NAME else v.numpy() for v in values]


def _value(array: Any) -> ort.OrtValue:
    whole = np.ascontiguousarray(array)
    if whole.dtype != Elem.BF16.dtype:
        return ort.OrtValue.ortvalue_from_numpy(whole)
    bits, code = whole.view(np.uint16), elem_code(Elem.BF16)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, code)


def _array(value: ort.OrtValue) -> npt.NDArray[Any]:
    """A copy of the memory, which goes with the value."""
    shape = tuple(value.shape())
    size = math.prod(shape) * Elem.BF16.dtype.itemsize
    memory = ctypes.string_at(value.data_ptr(), size)
    return np.frombuffer(memory, Elem.BF16.dtype).reshape(shape)
