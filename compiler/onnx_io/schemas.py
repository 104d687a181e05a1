"""What onnx's own schemas say about an op at an opset."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import onnx.defs
from onnx.defs import OpSchema

from qdqc.ir.core import Value
from qdqc.ir.types import Elem, OptionalType, SequenceType, Type
from qdqc.ops.onnx_table import shorten

__all__ = [
    "NEWEST",
    "OLDEST",
    "Schema",
    "elem_spelling",
    "schema_at",
    "type_spelling",
    "unchanged_until",
]

OLDEST = 7
"""The lowest opset that is read and written."""

NEWEST = onnx.defs.onnx_opset_version()

_CHANGED = frozenset(
    {
        "BatchNormalization",
        "DeformConv",
        "GroupNormalization",
        "Hardmax",
        "LogSoftmax",
        "Resize",
        "RoiAlign",
        "Scan",
        "Softmax",
        "Upsample",
    }
)
"""Ops whose meaning, not only whose signature, depends on the opset."""

_SPELLINGS = {
    Elem.F32: "float",
    Elem.F64: "double",
    Elem.F16: "float16",
    Elem.BF16: "bfloat16",
    Elem.F8E4M3FN: "float8e4m3fn",
    Elem.F8E4M3FNUZ: "float8e4m3fnuz",
    Elem.F8E5M2: "float8e5m2",
    Elem.F8E5M2FNUZ: "float8e5m2fnuz",
    Elem.C64: "complex64",
    Elem.C128: "complex128",
}


def elem_spelling(elem: Elem) -> str:
    """``tensor(float)`` as schemas write it."""
    text = elem.text
    spelling = _SPELLINGS.get(elem)
    if spelling is None and elem.is_integer:
        spelling = ("uint" if text[0] == "u" else "int") + text[1:]
    if spelling is None:
        spelling = {"f4e2m1": "float4e2m1", "f8e8m0": "float8e8m0"}.get(text, text)
    return f"tensor({spelling})"


def type_spelling(type: Type) -> str:
    """A type without its shape, as schemas write it: ``seq(tensor(float))``."""
    if isinstance(type, SequenceType):
        return f"seq({type_spelling(type.item)})"
    if isinstance(type, OptionalType):
        return f"optional({type_spelling(type.item)})"
    return elem_spelling(type.elem)


@dataclass(frozen=True)
class Schema:
    """A schema in plain terms; ``defaults`` are those of attributes that have one."""

    raw: OpSchema
    defaults: dict[str, Any]

    @property
    def since(self) -> int:
        return self.raw.since_version

    @property
    def required(self) -> list[str]:
        """Names of attributes that every node must state."""
        return [name for name, attribute in self.raw.attributes.items() if attribute.required]

    def input_at(self, index: int) -> OpSchema.FormalParameter | None:
        """The formal input at a position; the last one repeats where it is variadic."""
        inputs = self.raw.inputs
        if index < len(inputs):
            return inputs[index]
        variadic = OpSchema.FormalParameterOption.Variadic
        return inputs[-1] if inputs and inputs[-1].option == variadic else None

    def output_at(self, index: int) -> OpSchema.FormalParameter | None:
        outputs = self.raw.outputs
        if index < len(outputs):
            return outputs[index]
        variadic = OpSchema.FormalParameterOption.Variadic
        return outputs[-1] if outputs and outputs[-1].option == variadic else None

    def elem_of(self, index: int, operands: Sequence[Value | None]) -> Elem | None:
        """The element type of a result, where the schema or the operands leave no other."""
        formal = self.output_at(index)
        if formal is None:
            return None
        for position, operand in enumerate(operands):
            like = self.input_at(position)
            if like is not None and operand is not None and like.type_str == formal.type_str:
                return operand.elem
        spellings = {elem_spelling(e): e for e in Elem}
        return spellings.get(next(iter(formal.types))) if len(formal.types) == 1 else None

    def attribute_type(self, name: str) -> int | None:
        """The number of an attribute's type; None for one that the schema has not."""
        attribute = self.raw.attributes.get(name)
        return None if attribute is None else int(cast(Any, attribute.type))


@functools.cache
def schema_at(domain: str, type: str, version: int) -> Schema | None:
    """The schema in force at an opset; None where there is none or it is deprecated."""
    try:
        raw = onnx.defs.get_schema(type, version, domain)
    except onnx.defs.SchemaError:
        return None
    if raw.deprecated:
        return None
    defaults = {
        name: _default(attribute)
        for name, attribute in raw.attributes.items()
        if attribute.default_value.type
    }
    return Schema(raw, defaults)


def _default(attribute: OpSchema.Attribute) -> Any:
    value = onnx.helper.get_attribute_value(attribute.default_value)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, float):
        return shorten(value)
    if isinstance(value, list | tuple):
        return tuple(v.decode() if isinstance(v, bytes) else v for v in value)
    return value


@functools.cache
def unchanged_until(domain: str, type: str, version: int, opset: int) -> bool:
    """Whether a node written for the schema at ``version`` means the same at ``opset``.

    True for the same schema, and for one that only takes more: further types, further
    optional inputs and attributes.
    """
    old, new = schema_at(domain, type, version), schema_at(domain, type, opset)
    if old is None or new is None:
        return old is None and new is None
    if old.since == new.since:
        return True
    if new.since < old.since or type in _CHANGED:
        return False
    return _attributes_kept(old, new) and _formals_kept(old, new)


def _attributes_kept(old: Schema, new: Schema) -> bool:
    for name, attribute in old.raw.attributes.items():
        kept = new.raw.attributes.get(name)
        if kept is None or kept.type != attribute.type:
            return False
        if old.defaults.get(name) != new.defaults.get(name):
            return False
    added = new.raw.attributes.keys() - old.raw.attributes.keys()
    return not any(new.raw.attributes[name].required for name in added)


def _formals_kept(old: Schema, new: Schema) -> bool:
    optional = OpSchema.FormalParameterOption.Optional
    pairs = ((old.raw.inputs, new.raw.inputs), (old.raw.outputs, new.raw.outputs))
    for before, after in pairs:
        if len(after) < len(before):
            return False
        for a, b in zip(before, after, strict=False):
            if a.option != b.option or not set(a.types) <= set(b.types):
                return False
        if any(formal.option != optional for formal in after[len(before) :]):
            return False
    return True
