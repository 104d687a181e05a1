"""Models whose constants lie in files, as a session takes them: places counted from the root.

onnxruntime maps what is external and copies what is inline, so what it runs has its constants in
whatever files hold them: a sidecar, external data, the model's own file, a temporary one.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Final

from onnx import ModelProto, TensorProto

from qdqc.diagnostics import QdqcError
from qdqc.ir.data import Data
from qdqc.ir.graph import Module
from qdqc.ir.mapped import place_of
from qdqc.onnx_io.exporter import build_model
from qdqc.onnx_io.external import ExternalError, ExternalFiles
from qdqc.onnx_io.light import OWN_FILE
from qdqc.onnx_io.reader import read_model
from qdqc.onnx_io.sizes import stored_tensors
from qdqc.onnx_io.tensors import external_place, point, to_tensor_proto
from qdqc.ops.onnx_table import elem_code

__all__ = ["ROOT", "rooted_file", "rooted_model", "rooted_tensor", "weight_numbers"]

ROOT: Final = Path(os.path.abspath(os.sep))
"""The folder that locations are counted from."""

_OUTSIDE_FROM = 4096
"""Smaller constants are inline: onnxruntime folds what it sees there."""


def rooted_model(module: Module, *, opset: int | None = None) -> ModelProto:
    """A module as ``export_onnx`` gives it, but constants that lie in files stay there."""
    return build_model(module, opset, False, rooted_tensor)


def rooted_tensor(data: Data, name: str) -> TensorProto:
    """The tensor of a constant, which says where its bytes are if they are in a file."""
    if data.strings is None and data.nbytes >= _OUTSIDE_FROM:
        place = place_of(data.buffer())
        location = None if place is None else _from_root(place[0])
        if place is not None and location is not None:
            tensor = TensorProto(name=name, data_type=elem_code(data.elem), dims=data.shape)
            point(tensor, location, place[1], data.nbytes)
            return tensor
    return to_tensor_proto(data, name)


def rooted_file(path: Path) -> ModelProto:
    """The model of a file; its external tensors, and the large ones of a large file, stay there.

    Raises QdqcError for what is no model, and for external data outside the model's folder or
    cut short.
    """
    model = read_model(path)
    files = ExternalFiles(path.parent, path)
    for name, tensor, _ in stored_tensors(model):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        try:
            location, offset, length = external_place(tensor, 0)
            whole = files.map(location)
            holder = path if location == OWN_FILE else files.folder / location
            rooted = _from_root(holder.resolve())
            if offset < 0 or offset + length > whole.size or rooted is None:
                raise ValueError(f"lies in '{location}', which is cut short")
        except ValueError as error:
            note = error.hint if isinstance(error, ExternalError) else "export the model again"
            raise QdqcError(f"tensor '{name}' {error}", file=str(path), notes=[note]) from error
        point(tensor, rooted, offset, length or whole.size - offset)
    return model


def weight_numbers(model: ModelProto) -> int:
    """How many numbers all tensors of a model hold, inline or external."""
    return sum(math.prod(dims) for _, _, dims in stored_tensors(model))


def _from_root(path: Path) -> str | None:
    """A path as a location; None on another drive."""
    return path.relative_to(ROOT).as_posix() if path.anchor == str(ROOT) else None
