"""ONNX attributes to plain data and back."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import AttributeProto, NodeProto, helper

from qdqc.diagnostics import QdqcError
from qdqc.ir.data import Data
from qdqc.ir.types import OptionalType, SequenceType, TensorType
from qdqc.onnx_io.schemas import NEWEST, Schema, schema_at
from qdqc.onnx_io.shapes import read_type, write_type
from qdqc.onnx_io.structure import node_label, node_loc
from qdqc.onnx_io.tensors import TensorReader, to_tensor_proto
from qdqc.ops.onnx_table import shorten

__all__ = ["constant_data", "read_attributes", "write_attribute"]

_BYTES = "bytes:base64,"
"""Begins the text of an attribute whose bytes are not text."""


def read_attributes(
    node: NodeProto, reader: TensorReader, schema: Schema | None = None
) -> dict[str, Any]:
    """All attributes of a node but graphs.

    Raises QdqcError for those that the IR has not, and for one of another type than its
    ``schema`` says.
    """
    out: dict[str, Any] = {}
    for attribute in node.attribute:
        if attribute.name in out:
            raise _unusable(node, attribute.name, "stands there twice", reader)
        if attribute.ref_attr_name:
            raise _unusable(node, attribute.name, "refers to an attribute of a function", reader)
        wanted = None if schema is None else schema.attribute_type(attribute.name)
        if wanted not in (None, attribute.type):
            kinds = AttributeProto.AttributeType.Name
            reason = f"is {kinds(attribute.type)}, but '{node.op_type}' takes {kinds(wanted)}"
            raise _unusable(node, attribute.name, reason, reader)
        if attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
            continue
        label = f"{node_label(node)}.{attribute.name}"
        try:
            out[attribute.name] = _read(attribute, reader, label)
        except ValueError as error:
            raise _unusable(node, attribute.name, str(error), reader) from None
    given = {attribute.name for attribute in node.attribute}
    missing = [] if schema is None else [n for n in schema.required if n not in given]
    if missing:
        raise _unusable(node, missing[0], "is missing, and there is no default", reader)
    return out


def _unusable(node: NodeProto, name: str, reason: str, reader: TensorReader) -> QdqcError:
    return QdqcError(
        f"attribute '{name}' {reason}",
        node=node.op_type,
        loc=node_loc(node),
        file=reader.file,
        notes=["the model is damaged; export it again"],
    )


def _read(attribute: AttributeProto, reader: TensorReader, label: str) -> Any:
    kind = attribute.type
    if kind == AttributeProto.FLOAT:
        return shorten(attribute.f)
    if kind == AttributeProto.INT:
        return attribute.i
    if kind == AttributeProto.STRING:
        return _text(attribute.s)
    if kind == AttributeProto.TENSOR:
        return reader.read(attribute.t, label)
    if kind == AttributeProto.SPARSE_TENSOR:
        return reader.sparse(attribute.sparse_tensor, label)
    if kind == AttributeProto.FLOATS:
        return tuple(shorten(f) for f in attribute.floats)
    if kind == AttributeProto.INTS:
        return tuple(attribute.ints)
    if kind == AttributeProto.STRINGS:
        return tuple(_text(s) for s in attribute.strings)
    if kind == AttributeProto.TENSORS:
        return tuple(reader.read(t, label) for t in attribute.tensors)
    if kind == AttributeProto.TYPE_PROTO:
        type = read_type(attribute.tp)
        if type is not None:
            return type
    raise ValueError("has a type that qdqc does not know")


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return _BYTES + base64.b64encode(raw).decode()


def write_attribute(name: str, value: Any, kind: int | None = None) -> AttributeProto:
    """An attribute of plain data; ``kind`` is the type that the schema wants, where known."""
    if isinstance(value, Data):
        return helper.make_attribute(name, to_tensor_proto(value, name))
    if isinstance(value, TensorType | SequenceType | OptionalType):
        return helper.make_attribute(name, write_type(value))
    if isinstance(value, str):
        return helper.make_attribute(name, _raw(value))
    if isinstance(value, bool):
        value = int(value)
    if kind == AttributeProto.FLOAT or (kind is None and isinstance(value, float)):
        return helper.make_attribute(name, float(value))
    if isinstance(value, tuple | list):
        return _list_attribute(name, list(value), kind)
    return helper.make_attribute(name, int(value))


def _list_attribute(name: str, items: list[Any], kind: int | None) -> AttributeProto:
    if items and isinstance(items[0], Data):
        return helper.make_attribute(name, [to_tensor_proto(d, name) for d in items])
    if items and isinstance(items[0], str):
        return helper.make_attribute(name, [_raw(s) for s in items])
    if not items:
        empty = kind if kind is not None else int(AttributeProto.INTS)
        return AttributeProto(name=name, type=AttributeProto.AttributeType.Name(empty))
    if kind == AttributeProto.FLOATS or any(isinstance(i, float) for i in items):
        return helper.make_attribute(name, [float(i) for i in items])
    return helper.make_attribute(name, [int(i) for i in items])


def _raw(text: str) -> bytes:
    if text.startswith(_BYTES):
        try:
            return base64.b64decode(text.removeprefix(_BYTES), validate=True)
        except binascii.Error:
            pass
    return text.encode("utf-8")


def constant_data(node: NodeProto, reader: TensorReader) -> Data:
    """The contents of a Constant node, whichever of its attributes holds them."""
    values: Mapping[str, Any] = read_attributes(node, reader, schema_at("", "Constant", NEWEST))
    if len(values) != 1:
        raise _unusable(node, "value", "is needed once by a Constant", reader)
    name, value = next(iter(values.items()))
    if isinstance(value, Data):
        return value
    dtypes = {
        "value_int": np.int64,
        "value_ints": np.int64,
        "value_float": np.float32,
        "value_floats": np.float32,
        "value_string": np.object_,
        "value_strings": np.object_,
    }
    if name not in dtypes:
        raise _unusable(node, name, "is nothing that a Constant holds", reader)
    try:
        return Data.of(np.array(value, dtype=dtypes[name]))
    except (ValueError, TypeError):
        raise _unusable(node, name, "does not hold what its name says", reader) from None
