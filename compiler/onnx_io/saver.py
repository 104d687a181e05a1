"""Writes ONNX files: whole or not at all, with external data where they are large."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from google.protobuf.message import Message
from onnx import ModelProto, TensorProto

from qdqc.files import Content, write_together
from qdqc.ir.data import Buffer, Data
from qdqc.ir.graph import Module
from qdqc.onnx_io.exporter import build_model
from qdqc.onnx_io.tensors import to_tensor_proto
from qdqc.ops.onnx_table import elem_code

__all__ = ["onnx_files", "save_onnx"]

_EXTERNAL_FROM = 1024
"""Tensors of fewer bytes stay inline."""
_INLINE_LIMIT = (1 << 31) - (1 << 26)
_ALIGNMENT = 4096
_CHUNK = 1 << 24

Load = Callable[[], Buffer]


class _External:
    """Lays tensors out in one data file, without holding their bytes."""

    def __init__(self, location: str) -> None:
        self.location = location
        self.pieces: list[tuple[int, Load]] = []
        self._end = 0
        self._known: dict[str, int] = {}

    def place(self, data: Data, name: str) -> TensorProto:
        """The tensor of a constant; equal contents are stored once."""
        if data.strings is not None or data.nbytes < _EXTERNAL_FROM:
            return to_tensor_proto(data, name)
        tensor = TensorProto(name=name, data_type=elem_code(data.elem), dims=data.shape)
        offset = self._known.get(data.digest)
        if offset is None:
            offset = self._known[data.digest] = self.add(data.nbytes, data.buffer)
        self.point(tensor, offset, data.nbytes)
        return tensor

    def add(self, size: int, load: Load) -> int:
        """Take up bytes; their offset in the file."""
        offset = -(-self._end // _ALIGNMENT) * _ALIGNMENT
        self.pieces.append((offset, load))
        self._end = offset + size
        return offset

    def point(self, tensor: TensorProto, offset: int, size: int) -> None:
        tensor.data_location = TensorProto.EXTERNAL
        entries = {"location": self.location, "offset": str(offset), "length": str(size)}
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)

    def write(self, out: BinaryIO) -> None:
        """Stream all pieces into a file."""
        for offset, load in self.pieces:
            out.write(b"\0" * (offset - out.tell()))
            whole = load()
            for start in range(0, whole.size, _CHUNK):
                out.write(whole[start : start + _CHUNK].tobytes())


def save_onnx(
    model: Module | ModelProto,
    path: str | Path,
    *,
    external: bool | None = None,
    opset: int | None = None,
    value_info: bool = False,
) -> None:
    """Write a model to a file; a module is exported on the way, with its weights streamed.

    Weights go to ``{path}.data`` when ``external`` says so, by default above 2 GB. The files
    appear whole or not at all; a link in their place is replaced, never followed. Raises
    QdqcError where the module can't be exported or the path can't be written.
    """
    write_together(
        onnx_files(model, Path(path), external=external, opset=opset, value_info=value_info)
    )


def onnx_files(
    model: Module | ModelProto,
    target: Path,
    *,
    external: bool | None = None,
    opset: int | None = None,
    value_info: bool = False,
) -> list[tuple[Path, Content]]:
    """The files that ``save_onnx`` writes, the model last. Raises QdqcError."""
    data = target.with_name(target.name + ".data")
    sink = _External(data.name)
    if external is None:
        external = _size(model) > _INLINE_LIMIT
    if isinstance(model, Module):
        proto = build_model(model, opset, value_info, sink.place if external else to_tensor_proto)
    else:
        proto = _moved_out(model, sink) if external else model
    whole = proto.SerializeToString()
    files: list[tuple[Path, Content]] = [(data, sink.write)] if sink.pieces else []
    return [*files, (target, whole)]


def _size(model: Module | ModelProto) -> int:
    if isinstance(model, ModelProto):
        return model.ByteSize()
    return sum(c.data.nbytes for c in model.constants.values() if c.is_used)


def _moved_out(model: ModelProto, sink: _External) -> ModelProto:
    """A copy of a model whose large initializers lie in the sink."""
    out = ModelProto()
    _copy_but(model, out, "graph")
    _copy_but(model.graph, out.graph, "initializer")
    for tensor in model.graph.initializer:
        light = out.graph.initializer.add()
        size = len(tensor.raw_data)
        if size < _EXTERNAL_FROM:
            light.CopyFrom(tensor)
            continue
        light.name, light.data_type = tensor.name, tensor.data_type
        light.dims.extend(tensor.dims)
        sink.point(
            light, sink.add(size, lambda t=tensor: np.frombuffer(t.raw_data, np.uint8)), size
        )
    return out


def _copy_but(source: Message, target: Message, skipped: str) -> None:
    """All fields of a message but one, which is never copied, not even for a moment."""
    for field, value in source.ListFields():
        if field.name == skipped:
            continue
        if isinstance(value, str | bytes | int | float):
            setattr(target, field.name, value)
        elif isinstance(value, Message):
            getattr(target, field.name).CopyFrom(value)
        else:
            getattr(target, field.name).extend(value)
