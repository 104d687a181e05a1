"""The sidecar: tensors as bytes in a safetensors file, each under the sha256 of its bytes.

The file is ``u64 header length | JSON header | bytes``; every tensor is U8 of one axis, the
element type is the business of the text. Writing streams, reading maps: neither holds the
weights in memory. Nothing in a header is believed before it has been checked against the file.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from qdqc.diagnostics import QdqcError
from qdqc.files import Content
from qdqc.ir.data import Buffer, Data
from qdqc.ir.fields import hints
from qdqc.ir.graph import Module
from qdqc.ir.mapped import map_file
from qdqc.ir.spelling import INLINE_LIMIT, is_inline
from qdqc.ir.types import OptionalType, Quant, SequenceType, TensorType

__all__ = ["Sidecar", "sidecar_writer", "tensors"]

_FORMAT = "qdqc-sidecar"
_LENGTH = struct.Struct("<Q")
_HEADER_LIMIT = 100 * 2**20
_KEY = re.compile(r"[0-9a-f]{64}\Z")
_ALIGNMENT = 64

Span = tuple[int, int]


def tensors(module: Module) -> dict[str, Data]:
    """Everything that the module's text refers to by digest, in the order of the text."""
    weights: dict[str, Data] = {}
    seen: set[int] = set()
    for data in _references(module, seen):
        if data.strings is None and not data.is_elided and data.size > INLINE_LIMIT:
            weights.setdefault(data.digest, data)
    return weights


def _references(module: Module, seen: set[int]) -> Iterator[Data]:
    yield from _inside(module.header, seen)
    for constant in module.constants.values():
        yield from _inside(constant.type, seen)
        yield constant.data
    graphs = [module.graph, *(g for node in module.walk() for g in node.graphs)]
    for graph in graphs:
        yield from _inside(graph.input_attrs, seen)
        for value in graph.inputs:
            yield from _inside(value.type, seen)
    for node in module.walk():
        for name in hints(type(node.op)):
            yield from _inside(getattr(node.op, name), seen)
        for value in node.present_results:
            yield from _inside(value.type, seen)


def _inside(value: Any, seen: set[int]) -> Iterator[Data]:
    """Data within an attribute or a type; each quantization is looked at once."""
    if isinstance(value, Data):
        yield value
    elif isinstance(value, TensorType):
        if value.quant is not None and id(value.quant) not in seen:
            seen.add(id(value.quant))
            yield from _parameters(value.quant)
    elif isinstance(value, SequenceType | OptionalType):
        yield from _inside(value.item, seen)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _inside(item, seen)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _inside(item, seen)


def _parameters(quant: Quant) -> Iterator[Data]:
    for array in (quant.scale, quant.zero_point):
        if not is_inline(array):
            yield Data.of(array)


class Sidecar:
    """A sidecar that was opened: its tensors by digest, mapped when somebody asks.

    Raises QdqcError where the file is missing or is not a sidecar.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._map: Buffer | None = None
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                self._spans, self.start = _read_header(file, size)
        except FileNotFoundError:
            raise QdqcError(
                f"the weights '{path.name}' are not beside the text, in '{path.parent}'",
                file=str(path),
                notes=["copy the .safetensors file along with its .qir, or make both again"],
            ) from None
        except OSError as error:
            raise QdqcError(f"can't read the weights: {error.strerror}", file=str(path)) from None
        except ValueError as error:
            raise QdqcError(
                f"this is not a sidecar of a .qir: {error}",
                file=str(path),
                notes=["make it again with the command that made the .qir"],
            ) from None

    @property
    def digests(self) -> tuple[str, ...]:
        return tuple(self._spans)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return max((end for _, end in self._spans.values()), default=0)

    def span(self, digest: str) -> Span:
        """Begin and end of a tensor, counted from the first tensor. Raises KeyError."""
        return self._spans[digest]

    def get(self, digest: str) -> Buffer | None:
        """The bytes of a tensor, read from the disk when they are looked at: uint8 [bytes]."""
        span = self._spans.get(digest)
        if span is None:
            return None
        if span[0] == span[1]:
            return np.zeros(0, np.uint8)
        if self._map is None:
            self._map = self._mapped()
        return self._map[self.start + span[0] : self.start + span[1]]

    def _mapped(self) -> Buffer:
        """The whole file, if it is still the one whose header was read."""
        try:
            with self.path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if _read_header(file, size) != (self._spans, self.start):
                    raise ValueError("another file")
                return map_file(file.fileno(), self.path)
        except (OSError, ValueError):
            raise QdqcError(
                "the weights changed after they were opened",
                file=str(self.path),
                notes=["run again once nothing writes to them any more"],
            ) from None


def sidecar_writer(weights: Mapping[str, Data], present: Sidecar | None = None) -> Content:
    """What writes a sidecar of these tensors, behind those of ``present``.

    Fresh files put the most aligned sizes first, so that every tensor lies as aligned as its
    own size allows.
    """
    entries: dict[str, Span] = {}
    end = 0
    if present is not None:
        entries = {d: present.span(d) for d in present.digests}
        end = present.nbytes
    new = sorted((d for d in weights if d not in entries), key=lambda d: -_even(weights[d].nbytes))
    for digest in new:
        entries[digest] = (end, end + weights[digest].nbytes)
        end = entries[digest][1]

    def write(file: BinaryIO) -> None:
        file.write(_header(entries))
        if present is not None:
            with present.path.open("rb") as old:
                old.seek(present.start)
                shutil.copyfileobj(old, file, 2**20)
        for digest in new:
            file.write(weights[digest].buffer().data)

    return write


def _even(nbytes: int) -> int:
    """The power of two, 64 at most, that divides a size."""
    return min(nbytes & -nbytes, _ALIGNMENT) if nbytes else _ALIGNMENT


def _header(entries: Mapping[str, Span]) -> bytes:
    fields: dict[str, Any] = {"__metadata__": {"format": _FORMAT}}
    for digest, (begin, end) in entries.items():
        fields[digest] = {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}
    text = json.dumps(fields, separators=(",", ":")).encode()
    padding = -(_LENGTH.size + len(text)) % _ALIGNMENT
    return _LENGTH.pack(len(text) + padding) + text + b" " * padding


def _read_header(file: BinaryIO, size: int) -> tuple[dict[str, Span], int]:
    """Spans by digest and where the bytes begin. Raises ValueError."""
    head = file.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise ValueError("it is too short")
    (length,) = _LENGTH.unpack(head)
    start = _LENGTH.size + length
    if length > _HEADER_LIMIT or start > size:
        raise ValueError(f"its header would take {length} bytes, the file has {size}")
    try:
        header: Any = json.loads(file.read(length))
    except (ValueError, RecursionError):
        raise ValueError("its header is not JSON") from None
    if not isinstance(header, dict):
        raise ValueError("its header is not a list of tensors")
    metadata: Any = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or metadata.get("format") != _FORMAT:
        raise ValueError("it was not written by qdqc")
    spans = {key: _span(key, entry) for key, entry in header.items()}
    _check_cover(spans.values(), size - start)
    return spans, start


def _span(key: str, entry: Any) -> Span:
    offsets: Any = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not _KEY.match(key) or not isinstance(offsets, list) or len(offsets) != 2:
        raise ValueError(f"its entry '{key[:80]}' is malformed")
    begin, end = offsets
    if type(begin) is not int or type(end) is not int or not 0 <= begin <= end:
        raise ValueError(f"the offsets of '{key}' are malformed")
    if entry.get("dtype") != "U8" or entry.get("shape") != [end - begin]:
        raise ValueError(f"'{key}' is not stored as bytes")
    return begin, end


def _check_cover(spans: Iterable[Span], nbytes: int) -> None:
    """Tensors follow each other without gap or overlap, to the end of the file."""
    position = 0
    for begin, end in sorted(spans):
        if begin != position:
            raise ValueError(f"its tensors overlap or leave a gap at byte {position}")
        position = end
    if position != nbytes:
        raise ValueError(f"its tensors take {position} bytes, the file has {nbytes} for them")
