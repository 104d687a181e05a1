"""ONNX files without their large tensors: these stay in the file, and the model says where.

The wire format is walked, not parsed: a message is a row of fields, each a tag and a length, and
whoever knows in which fields tensors lie can leave their bytes where they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from onnx import StringStringEntryProto, TensorProto

__all__ = ["OWN_FILE", "WireError", "light_bytes", "tagged"]

OWN_FILE: Final = "*/the model's own file"
"""The external location of what lies in the model's own file."""

_LARGE = 1 << 16
"""Messages of fewer bytes are taken over whole."""

_DEEPEST = 60

_BYTES = 2
_FIXED = {1: 8, 5: 4}

_RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 9, 13, 14

_INSIDE: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph"},
    "graph": {1: "node", 5: "tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
}
"""By message the fields that lead to tensors."""


class WireError(ValueError):
    """The bytes are no row of fields."""


class _Field(NamedTuple):
    number: int
    kind: int
    start: int
    begin: int
    end: int


def light_bytes(whole: memoryview) -> bytes:
    """A serialized model whose large raw data became external, at ``OWN_FILE``.

    Raises WireError for what is no protobuf message.
    """
    return b"".join(_message(whole, 0, len(whole), "model", 0))


def tagged(number: int, length: int) -> bytes:
    """What stands before so many bytes of a field."""
    return _varint(number << 3 | _BYTES) + _varint(length)


def _message(
    whole: memoryview, begin: int, end: int, kind: str, depth: int
) -> Iterator[bytes | memoryview]:
    if depth > _DEEPEST:
        raise WireError("messages lie too deep in each other")
    for field in _fields(whole, begin, end):
        inner = _INSIDE[kind].get(field.number)
        if inner is None or field.kind != _BYTES or field.end - field.begin < _LARGE:
            yield whole[field.start : field.end]
            continue
        if inner == "tensor":
            made = _tensor(whole, field.begin, field.end)
        else:
            made = b"".join(_message(whole, field.begin, field.end, inner, depth + 1))
        yield tagged(field.number, len(made)) + made


def _tensor(whole: memoryview, begin: int, end: int) -> bytes:
    """A tensor without its raw data where these are large."""
    fields = list(_fields(whole, begin, end))
    raw = [f for f in fields if f.number == _RAW_DATA and f.kind == _BYTES]
    placed = any(f.number in (_EXTERNAL_DATA, _DATA_LOCATION) for f in fields)
    if placed or len(raw) != 1 or raw[0].end - raw[0].begin < _LARGE:
        return bytes(whole[begin:end])
    rest = b"".join(whole[f.start : f.end] for f in fields if f is not raw[0])
    size = raw[0].end - raw[0].begin
    entries = {"location": OWN_FILE, "offset": str(raw[0].begin), "length": str(size)}
    place = TensorProto(
        data_location=TensorProto.EXTERNAL,
        external_data=[StringStringEntryProto(key=k, value=v) for k, v in entries.items()],
    )
    return rest + place.SerializeToString()


def _fields(whole: memoryview, begin: int, end: int) -> Iterator[_Field]:
    position = begin
    while position < end:
        start = position
        tag, position = _read_varint(whole, position, end)
        number, kind = tag >> 3, tag & 7
        first = position
        if kind == 0:
            _, position = _read_varint(whole, position, end)
        elif kind == _BYTES:
            length, first = _read_varint(whole, position, end)
            position = first + length
        elif kind in _FIXED:
            position += _FIXED[kind]
        else:
            raise WireError(f"a field of kind {kind}")
        if position > end or not number:
            raise WireError("a field reaches over the end of its message")
        yield _Field(number, kind, start, first, position)


def _read_varint(whole: memoryview, position: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            break
        byte = whole[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise WireError("a number has no end")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
