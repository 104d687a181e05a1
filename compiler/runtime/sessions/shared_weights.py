"""Constants that several sessions read from one place in memory."""

from __future__ import annotations

import onnxruntime as ort
from onnx import TensorProto

from qdqc.ir.data import Data
from qdqc.onnx_io.rooted import rooted_tensor
from qdqc.onnx_io.tensors import point
from qdqc.ops.onnx_table import elem_code

__all__ = ["Weights"]

_SHARED_FROM = 4096
"""Smaller constants are written into each model: onnxruntime folds what it sees there."""
_LOCATION = "shared"


class Weights:
    """Contents that were laid out for one session and serve the next.

    ``place`` is the exporter's hook: it leaves a large constant out of the model. ``take`` gives
    what was left out since it was last asked, for that model's session. A model is then built
    and read without its weights, which is most of the time that a session takes to open.
    """

    def __init__(self) -> None:
        self._values: dict[tuple[str, str, tuple[int, ...]], ort.OrtValue] = {}
        self._wanted: dict[str, ort.OrtValue] = {}

    def place(self, data: Data, name: str) -> TensorProto:
        """The tensor of a constant; a large one says only where its bytes are."""
        tensor = rooted_tensor(data, name)
        placed = tensor.data_location == TensorProto.EXTERNAL
        if placed or data.strings is not None or data.elem.bits < 8 or data.nbytes < _SHARED_FROM:
            return tensor
        key = (data.elem.text, data.digest, data.shape)
        if key not in self._values:
            code = elem_code(data.elem)
            self._values[key] = ort.OrtValue.ortvalue_from_numpy_with_onnx_type(data.array(), code)
        self._wanted[name] = self._values[key]
        tensor = TensorProto(name=name, data_type=elem_code(data.elem), dims=data.shape)
        point(tensor, _LOCATION, 0, data.nbytes)
        return tensor

    def take(self) -> dict[str, ort.OrtValue]:
        """What the model that was just built left out, by name."""
        left_out, self._wanted = self._wanted, {}
        return left_out
