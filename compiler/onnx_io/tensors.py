"""ONNX tensors to ``Data`` and back. Sizes are checked before anything is allocated."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from onnx import SparseTensorProto, TensorProto

from qdqc.diagnostics import QdqcError
from qdqc.ir.data import Buffer, Data, packed_size
from qdqc.ir.mapped import spilled
from qdqc.ir.types import Elem
from qdqc.onnx_io.external import ExternalError, ExternalFiles
from qdqc.ops.onnx_table import elem_code, elem_of_code

__all__ = ["TensorReader", "external_place", "point", "to_tensor_proto"]

_MOST_BYTES = 1 << 42
"""A declared size above 4 TiB is taken for a corrupt or hostile file."""


class TensorReader:
    """Reads the tensors of one model; ``folder`` is where its external data may lie."""

    def __init__(self, file: str | None, folder: Path | None) -> None:
        self.file = file
        own = None if file is None else Path(file)
        self._files = None if folder is None else ExternalFiles(folder, own)

    def read(self, tensor: TensorProto, label: str) -> Data:
        """The contents of a tensor. Raises QdqcError where they are not whole."""
        elem = elem_of_code(tensor.data_type)
        if elem is None:
            kind = tensor.data_type
            raise self._bad(label, f"has the element type {kind}, which qdqc does not know")
        shape = self._shape(tensor.dims, elem, label)
        if tensor.data_location == TensorProto.EXTERNAL:
            if elem is Elem.STRING:
                raise self._bad(label, "holds strings in an external file; ONNX forbids that")
            return self._external(tensor, elem, shape, label)
        if elem is Elem.STRING:
            return self._strings(tensor, shape, label)
        if tensor.HasField("raw_data"):
            buffer: Buffer = np.frombuffer(tensor.raw_data, dtype=np.uint8)
        else:
            buffer = self._typed(tensor, elem, label)
        if self.file is None:  # a model in memory may be of any size
            buffer = spilled(buffer)
        wanted = packed_size(elem, math.prod(shape))
        if buffer.size != wanted:
            raise self._bad(
                label,
                f"declares {_shape_text(elem, shape)}, {wanted} bytes, but holds {buffer.size}",
            )
        return Data(elem, shape, buffer)

    def stated_size(self, tensor: TensorProto, dims: Iterable[int], label: str) -> int:
        """Bytes of a tensor of these dimensions, by its element type; 0 where that is unknown.

        Raises QdqcError for dimensions that can't be.
        """
        elem = elem_of_code(tensor.data_type)
        return 0 if elem is None else packed_size(elem, math.prod(self._shape(dims, elem, label)))

    def sparse(self, tensor: SparseTensorProto, label: str) -> Data:
        """A sparse tensor made dense. Raises QdqcError."""
        values = self.read(tensor.values, label)
        indices = self.read(tensor.indices, f"{label} (indices)").array()
        shape = self._shape(tensor.dims, values.elem, label)
        count = values.size
        if values.strings is not None or len(values.shape) != 1:
            content = f"holds {_shape_text(values.elem, values.shape)} for shape {list(shape)}"
            raise self._bad(label, f"{content}, but a sparse tensor is a list of numbers")
        if indices.dtype != np.int64 or indices.shape not in ((count,), (count, len(shape))):
            raise self._bad(label, f"has indices of shape {list(indices.shape)}")
        if packed_size(values.elem, math.prod(shape)) > 1 << 31:
            raise self._bad(label, "is a sparse tensor of more than 2 GB when written out")
        dense = np.zeros(shape, dtype=values.elem.dtype)
        positions = indices.astype(np.int64)
        if indices.ndim == 2:
            bounds = np.asarray(shape, dtype=np.int64)
            inside = bool(np.all((positions >= 0) & (positions < bounds)))
            positions = np.ravel_multi_index(tuple(positions.T), shape) if inside else positions
        else:
            inside = bool(np.all((positions >= 0) & (positions < dense.size)))
        if not inside:
            raise self._bad(label, "has an index outside its shape")
        dense.reshape(-1)[positions] = values.array()
        return Data.of(dense, values.elem)

    def _shape(self, dims: Iterable[int], elem: Elem, label: str) -> tuple[int, ...]:
        shape = tuple(int(d) for d in dims)
        if any(d < 0 for d in shape):
            raise self._bad(label, f"has a negative dimension: {list(shape)}")
        if (
            len(shape) > 64
            or math.prod(d for d in shape if d) * max(elem.bits, 8) > _MOST_BYTES * 8
        ):
            raise self._bad(label, f"declares {_shape_text(elem, shape)}, which overflows")
        return shape

    def _strings(self, tensor: TensorProto, shape: tuple[int, ...], label: str) -> Data:
        texts = tuple(s.decode("utf-8", "replace") for s in tensor.string_data)
        if len(texts) != math.prod(shape):
            raise self._bad(label, f"declares {list(shape)} strings, but holds {len(texts)}")
        return Data(Elem.STRING, shape, None, strings=texts)

    def _typed(self, tensor: TensorProto, elem: Elem, label: str) -> Buffer:
        """The bytes of the typed fields: codes of narrow types stand in ``int32_data``."""
        try:
            if elem in (Elem.F32, Elem.C64):
                return _bytes(np.array(tensor.float_data, dtype=np.float32))
            if elem in (Elem.F64, Elem.C128):
                return _bytes(np.array(tensor.double_data, dtype=np.float64))
            if elem is Elem.I64:
                return _bytes(np.array(tensor.int64_data, dtype=np.int64))
            if elem in (Elem.U64, Elem.U32):
                wide = np.array(tensor.uint64_data, dtype=np.uint64)
                return _bytes(wide.astype(elem.dtype))
            codes = np.array(tensor.int32_data, dtype=np.int32)
        except (OverflowError, ValueError) as error:
            raise self._bad(label, f"holds numbers that do not fit {elem.text}") from error
        if elem is Elem.I32:
            return _bytes(codes)
        return _bytes(codes.astype(np.uint16 if elem.bits == 16 else np.uint8))

    def _external(
        self, tensor: TensorProto, elem: Elem, shape: tuple[int, ...], label: str
    ) -> Data:
        wanted = packed_size(elem, math.prod(shape))
        try:
            location, offset, length = external_place(tensor, wanted)
        except ValueError as error:
            raise self._bad(label, "has an offset or length that is not a number") from error
        if length != wanted:
            raise self._bad(
                label, f"declares {_shape_text(elem, shape)}, {wanted} bytes, but length {length}"
            )
        if self._files is None:
            raise self._bad(
                label,
                "keeps its data in an external file, but the model was given without a folder",
                "give the path of the model file instead of a ModelProto",
            )
        try:
            whole = self._files.map(location)
        except ExternalError as error:
            raise self._bad(label, str(error), error.hint) from error
        if offset < 0 or offset + length > whole.size:
            raise self._bad(
                label,
                f"reaches from byte {offset} to {offset + length} of '{Path(location).name}', "
                f"which has {whole.size} bytes",
                "the external data file is cut short, or belongs to another model",
            )
        return Data(elem, shape, whole[offset : offset + length])

    def _bad(self, label: str, reason: str, *notes: str) -> QdqcError:
        notes = notes or (
            "the file is damaged or was written by a faulty exporter; export it again",
        )
        return QdqcError(f"tensor '{label}' {reason}", file=self.file, notes=notes)


def external_place(tensor: TensorProto, nbytes: int) -> tuple[str, int, int]:
    """Location, offset and length of a tensor of so many bytes. Raises ValueError."""
    entries = {e.key: e.value for e in tensor.external_data}
    offset, length = entries.get("offset"), entries.get("length")
    return entries.get("location", ""), int(offset or 0), int(length or nbytes)


def point(tensor: TensorProto, location: str, offset: int, nbytes: int) -> None:
    """Let a tensor's bytes be those of a file, from an offset on."""
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in {"location": location, "offset": offset, "length": nbytes}.items():
        tensor.external_data.add(key=key, value=str(value))


def to_tensor_proto(data: Data, name: str) -> TensorProto:
    """A tensor with its bytes inline. Raises ValueError for elided data."""
    tensor = TensorProto(name=name, data_type=elem_code(data.elem), dims=data.shape)
    if data.strings is not None:
        tensor.string_data.extend(s.encode() for s in data.strings)
    else:
        tensor.raw_data = data.buffer().tobytes()
    return tensor


def _bytes(array: npt.NDArray[np.generic]) -> Buffer:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _shape_text(elem: Elem, shape: tuple[int, ...]) -> str:
    return f"{elem.text}[{','.join(map(str, shape))}]"
