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
from qdqc.onnx_io.light import OWN_FILE, tagged
from qdqc.onnx_io.reader import read_model
from qdqc.onnx_io.tensors import external_place, point, to_tensor_proto
from qdqc.ops.onnx_table import elem_code

__all__ = ["file_bytes", "onnx_bytes", "onnx_files", "save_onnx"]

_EXTERNAL_FROM = 1024
"""Tensors of fewer bytes stay inline."""
_DATA = ".data"
_INLINE_LIMIT = (1 << 31) - (1 << 26)
_ALIGNMENT = 4096
_CHUNK = 1 << 24

Load = Callable[[], Buffer]

_INITIALIZER, _GRAPH, _RAW_DATA = 5, 7, 9
"""Fields of a graph, of a model and of a tensor."""


class _Kept:
    """Bytes of large tensors, which are loaded one at a time when the file is written."""

    def __init__(self) -> None:
        self.loads: dict[str, tuple[str, int, Load]] = {}

    def place(self, data: Data, name: str) -> TensorProto:
        """The tensor of a constant, without its bytes where these are many."""
        if data.strings is not None or data.nbytes < _EXTERNAL_FROM:
            return to_tensor_proto(data, name)
        self.loads[name] = data.digest, data.nbytes, data.buffer
        return TensorProto(name=name, data_type=elem_code(data.elem), dims=data.shape)

    def of_proto(self, tensor: TensorProto, light: TensorProto) -> None:
        """Let ``light`` be a tensor of a ModelProto without its bytes where these are many."""
        size = len(tensor.raw_data)
        if size < _EXTERNAL_FROM:
            light.CopyFrom(tensor)
            return
        light.name, light.data_type = tensor.name, tensor.data_type
        light.dims.extend(tensor.dims)
        load = lambda: np.frombuffer(tensor.raw_data, np.uint8)  # noqa: E731 - as short as it is
        self.loads[tensor.name] = f"{tensor.name} {len(self.loads)}", size, load

    def external(self, model: ModelProto, location: str) -> Content:
        """Let the tensors be those of a data file; what writes that file."""
        pieces: list[tuple[int, Load]] = []
        known: dict[str, int] = {}
        end = 0
        for tensor in model.graph.initializer:
            if tensor.name not in self.loads:
                continue
            key, size, load = self.loads[tensor.name]
            if key not in known:
                known[key] = -(-end // _ALIGNMENT) * _ALIGNMENT
                pieces.append((known[key], load))
                end = known[key] + size
            point(tensor, location, known[key], size)

        def write(out: BinaryIO) -> None:
            for offset, load in pieces:
                out.write(b"\0" * (offset - out.tell()))
                _copy(load(), out)

        return write

    def inline(self, model: ModelProto) -> Content:
        """What writes a model with the bytes of its tensors in place, as protobuf does."""
        parts = self._parts(model)

        def write(out: BinaryIO) -> None:
            for head, load in parts:
                out.write(head)
                if load is not None:
                    _copy(load(), out)

        return write

    def bytes_inline(self, model: ModelProto) -> int:
        """How long the file of ``inline`` is."""
        return sum(len(head) for head, _ in self._parts(model)) + self.nbytes

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, equal ones counted as often as they are there."""
        return sum(size for _, size, _ in self.loads.values())

    def _parts(self, model: ModelProto) -> list[tuple[bytes, Load | None]]:
        """The file in order: bytes, and the tensor whose bytes follow them."""
        before, behind = _around(model.graph, "initializer", _INITIALIZER)
        parts: list[tuple[bytes, Load | None]] = []
        size = len(before) + len(behind)
        for tensor in model.graph.initializer:
            head = tensor.SerializeToString()
            _, nbytes, load = self.loads.get(tensor.name, ("", 0, None))
            if load is not None:
                head += tagged(_RAW_DATA, nbytes)
            lead = tagged(_INITIALIZER, len(head) + nbytes) + head
            parts.append((lead, load))
            size += len(lead) + nbytes
        first, last = _around(model, "graph", _GRAPH)
        return [(first + tagged(_GRAPH, size) + before, None), *parts, (behind + last, None)]


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
    data = target.with_name(target.name + _DATA)
    proto, kept = _light(model, opset, value_info)
    if external is None:
        external = proto.ByteSize() + kept.nbytes > _INLINE_LIMIT
    if external and kept.loads:
        write = kept.external(proto, data.name)
        return [(data, write), (target, proto.SerializeToString())]
    return [(target, kept.inline(proto))]


def onnx_bytes(model: Module | ModelProto) -> int:
    """Bytes of the file that a model makes, its weights inline."""
    proto, kept = _light(model, None, False)
    return kept.bytes_inline(proto)


def file_bytes(path: Path) -> int:
    """Bytes of a model's file and of its external data. Raises QdqcError, OSError."""
    model = read_model(path)
    kept = [t for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL]
    places = {external_place(t, 0) for t in kept}
    outside = sum(length for location, _, length in places if location != OWN_FILE)
    return path.stat().st_size + outside


def _light(
    model: Module | ModelProto, opset: int | None, value_info: bool
) -> tuple[ModelProto, _Kept]:
    """A model without the bytes of its large initializers, and these."""
    kept = _Kept()
    if isinstance(model, Module):
        return build_model(model, opset, value_info, kept.place), kept
    out = ModelProto()
    _copy_but(model, out, "graph")
    _copy_but(model.graph, out.graph, "initializer")
    for tensor in model.graph.initializer:
        kept.of_proto(tensor, out.graph.initializer.add())
    return out, kept


def _copy(whole: Buffer, out: BinaryIO) -> None:
    for start in range(0, whole.size, _CHUNK):
        out.write(whole[start : start + _CHUNK].data)


def _around(message: Message, left_out: str, number: int) -> tuple[bytes, bytes]:
    """A message's fields before and behind one of that number, serialized; that one left out."""
    before, behind = type(message)(), type(message)()
    fields = [f.name for f, _ in message.ListFields() if f.name != left_out]
    for name in fields:
        target = before if message.DESCRIPTOR.fields_by_name[name].number < number else behind
        _copy_field(message, target, name)
    return before.SerializeToString(), behind.SerializeToString()


def _copy_but(source: Message, target: Message, skipped: str) -> None:
    """All fields of a message but one, which is never copied, not even for a moment."""
    for field, _ in source.ListFields():
        if field.name != skipped:
            _copy_field(source, target, field.name)


def _copy_field(source: Message, target: Message, name: str) -> None:
    value = getattr(source, name)
    if isinstance(value, str | bytes | int | float):
        setattr(target, name, value)
    elif isinstance(value, Message):
        getattr(target, name).CopyFrom(value)
    else:
        getattr(target, name).extend(value)
