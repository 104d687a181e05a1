"""Runs a session on arrays of types that onnxruntime's Python interface does not take as well."""

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

_ELEMS = {
    "tensor(bfloat16)": Elem.BF16,
    "tensor(float8e4m3fn)": Elem.F8E4M3FN,
    "tensor(float8e4m3fnuz)": Elem.F8E4M3FNUZ,
    "tensor(float8e5m2)": Elem.F8E5M2,
    "tensor(float8e5m2fnuz)": Elem.F8E5M2FNUZ,
}
"""Those types, which numpy has from ml_dtypes."""


def fetch(
    session: ort.InferenceSession,
    wanted: Sequence[str] | None,
    feeds: Mapping[str, Any],
    options: ort.RunOptions | None = None,
) -> list[Any]:
    """Values of the names, or all outputs, for arrays by the names of inputs.

    Arrays of bf16 and f8 go in and come out as memory that onnxruntime is told the type of.
    """
    infos = (*session.get_inputs(), *session.get_outputs())
    if all(info.type not in _ELEMS for info in infos):
        return list(session.run(wanted, dict(feeds), options))
    values = session.run_with_ort_values(wanted, {n: _value(a) for n, a in feeds.items()}, options)
    return [_array(v, e) if (e := _ELEMS.get(v.data_type())) else v.numpy() for v in values]


def _value(array: Any) -> ort.OrtValue:
    whole = np.ascontiguousarray(array)
    elem = next((e for e in _ELEMS.values() if e.dtype == whole.dtype), None)
    if elem is None:
        return ort.OrtValue.ortvalue_from_numpy(whole)
    bits = whole.view(f"u{whole.dtype.itemsize}")
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, elem_code(elem))


def _array(value: ort.OrtValue, elem: Elem) -> npt.NDArray[Any]:
    """A copy of the memory, which goes with the value."""
    shape = tuple(value.shape())
    size = math.prod(shape) * elem.dtype.itemsize
    memory = ctypes.string_at(value.data_ptr(), size)
    return np.frombuffer(memory, elem.dtype).reshape(shape)
