"""How one node of the IR is spelt at an opset: its attributes, its inputs, or why it can't be."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from qdqc.ir.core import Node
from qdqc.ir.data import Data
from qdqc.ir.fields import encode, hints
from qdqc.ir.op import Op
from qdqc.ir.spelling import print_value
from qdqc.ir.types import Elem, Quant, TensorType
from qdqc.onnx_io.expand import expand, may_expand
from qdqc.onnx_io.schemas import (
    NEWEST,
    Schema,
    elem_spelling,
    schema_at,
    type_spelling,
    unchanged_until,
)
from qdqc.ops.control import If
from qdqc.ops.elementwise import Mod
from qdqc.ops.onnx_table import attribute_fields, elem_code
from qdqc.ops.opaque import Opaque
from qdqc.ops.pool import Window
from qdqc.ops.quant import Dequantize, Quantize

_DROPPED_WINDOWS = 22
_BRANCHES_DIFFER = 11
_FLOAT_MODULO = 28
_NEGATIVE_AXES = 11

__all__ = [
    "Spelling",
    "is_whole",
    "misfit",
    "operands_taking",
    "quant_of",
    "signature",
    "spell",
]


@dataclass(frozen=True)
class Spelling:
    """Attributes by ONNX name as plain data, and inputs that stand for attributes.

    ``inputs`` maps input positions to (field name, contents).
    """

    attrs: dict[str, Any]
    inputs: dict[int, tuple[str, Data]]


def quant_of(node: Node[Any]) -> tuple[Elem, Quant] | None:
    """Integer type and scale of a quantize or dequantize node; None for other nodes."""
    if isinstance(node.op, Quantize):
        typed = node.result.type
    elif isinstance(node.op, Dequantize):
        typed = node.need("x").type
    else:
        return None
    if not isinstance(typed, TensorType) or typed.quant is None:
        return None
    return typed.elem, _written_out(node.op, typed, typed.quant)


def _written_out(op: Op, tensor: TensorType, quant: Quant) -> Quant:
    """A dequantize with an axis has its one scale once for each element of that axis."""
    axis = op.axis if isinstance(op, Dequantize) else None
    size = tensor.shape[axis] if axis is not None and tensor.shape is not None else None
    if quant.axis is not None or not isinstance(size, int):
        return quant
    return Quant.make([float(quant.scale)] * size, int(quant.zero_point), axis)


def signature(node: Node[Any]) -> tuple[Any, ...]:
    """What decides at which opsets a node can be spelt."""
    types = [None if v is None else type_spelling(v.type) for v in node.operands]
    types += ["->", *(None if r is None else type_spelling(r.type) for r in node.results)]
    quant = quant_of(node)
    layout = None if quant is None else (quant[1].axis is None, quant[1].block is None)
    if isinstance(node.op, Opaque):
        return (node.op.domain, node.op.type, node.op.version)
    fields = tuple(name for name, _ in encode(node.op))
    negative = any(_is_negative_axis(f, getattr(node.op, f)) for f in fields)
    rest = (_is_uneven(node), _drops_window(node), _branches_differ(node), negative)
    return (type(node.op), fields, tuple(types), layout, node.op.clamp, *rest)


def _is_uneven(node: Node[Any]) -> bool:
    """Whether a Split by number has a smaller last part; old opsets have no such thing."""
    counter = None if node.op.onnx is None else node.op.onnx.result_count
    if counter is None or not getattr(node.op, counter):
        return False
    types = [r.type for r in node.present_results if isinstance(r.type, TensorType)]
    return len({t.shape for t in types}) > 1


def _drops_window(node: Node[Any]) -> bool:
    """Whether a pool drops a window that ONNX's inference counts before ``_DROPPED_WINDOWS``."""
    x = node.at(0)
    if not isinstance(node.op, Window) or x is None or not isinstance(x.type, TensorType):
        return False
    return node.op.drops_window(x.type.expressed())


def _branches_differ(node: Node[Any]) -> bool:
    """Whether the branches of an If give other shapes, which old opsets do not have."""
    if not isinstance(node.op, If):
        return False
    types = [[v.type for v in graph.outputs] for graph in node.graphs]
    shapes = [[t.shape if isinstance(t, TensorType) else None for t in each] for each in types]
    return shapes[0] != shapes[-1]


def _is_float_modulo(node: Node[Any]) -> bool:
    x = node.at(0)
    return (
        isinstance(node.op, Mod)
        and not node.op.fmod
        and x is not None
        and isinstance(x.type, TensorType)
        and not x.type.elem.is_integer
    )


def misfit(node: Node[Any], opset: int, *, whole: bool = False) -> str | None:
    """Why a node can't be written at an opset; None where it can, as one node or written out.

    With ``whole`` it must be one node, apart from its fused activation.
    """
    fused = node.op.clamp is not None
    reason = None if fused else _misfit(node, opset)
    if not may_expand(node) or (not fused and (reason is None or whole)):
        return reason
    parts = expand(node)
    if parts is None:
        return reason
    reasons = (misfit(n, opset, whole=whole) for n in parts.module.graph.nodes())
    return next((r for r in reasons if r is not None), None)


def is_whole(node: Node[Any], opset: int) -> bool:
    """Whether a node is written as one node at an opset that it fits."""
    if not may_expand(node):
        return True
    return node.op.clamp is None and _misfit(node, opset) is None


def _misfit(node: Node[Any], opset: int) -> str | None:
    """Why a node can't be written as one node; a fused activation is not looked at."""
    op = node.op
    if isinstance(op, Opaque):
        if op.domain or unchanged_until(op.domain, op.type, op.version, opset):
            return None
        return f"ONNX changed '{op.type}' between opset {op.version} and {opset}"
    facts = op.onnx
    if facts is None:
        return "it has no ONNX form"
    if facts.domain:
        return None
    schema = schema_at("", facts.type, opset)
    if schema is None or opset < facts.since:
        return f"'{facts.type}' needs opset {facts.since} or newer"
    reason = _attributes_misfit(op, schema, opset) or _types_misfit(node, schema, opset)
    if reason is None and _is_uneven(node) and opset < facts.field_since.get("num_outputs", 0):
        reason = f"'{facts.type}' in uneven parts needs a newer opset"
    if reason is None and opset < _FLOAT_MODULO and _is_float_modulo(node):
        reason = f"'Mod' of floats by floor needs opset {_FLOAT_MODULO} or newer"
    if reason is None and opset < _BRANCHES_DIFFER and _branches_differ(node):
        reason = f"branches of other shapes need opset {_BRANCHES_DIFFER} or newer"
    if reason is None and opset < _DROPPED_WINDOWS and _drops_window(node):
        reason = f"a window that starts in the padding needs opset {_DROPPED_WINDOWS} or newer"
    return reason


def _attributes_misfit(op: Op, schema: Schema, opset: int) -> str | None:
    facts = op.onnx
    assert facts is not None
    names = {field: name for name, field in attribute_fields(type(op)).items()}
    for field, _ in encode(op):
        if field not in names or field == facts.result_count:
            continue
        if opset < _NEGATIVE_AXES and _is_negative_axis(field, getattr(op, field)):
            return f"an axis counted from the end needs opset {_NEGATIVE_AXES} or newer"
        since = facts.field_since.get(field, 0)
        by_input = facts.attr_inputs.get(field)
        if opset < since:
            return f"'{field}' needs opset {since} or newer"
        if by_input is not None and opset >= by_input[0]:
            continue
        if schema.attribute_type(names[field]) is None:
            return f"'{facts.type}' has no attribute '{names[field]}' at opset {opset}"
    return None


def _is_negative_axis(field: str, value: Any) -> bool:
    numbers = value if isinstance(value, tuple) else (value,)
    return field in ("axis", "axes") and any(isinstance(n, int) and n < 0 for n in numbers)


def _types_misfit(node: Node[Any], schema: Schema, opset: int) -> str | None:
    types = [None if v is None else v.type for v in node.operands]
    quant = quant_of(node)
    if quant is not None:
        elem, parameters = quant
        if parameters.axis is not None and schema.attribute_type("axis") is None:
            return "a scale per axis needs opset 13 or newer"
        if parameters.block is not None and schema.attribute_type("block_size") is None:
            return "a scale per block needs opset 21 or newer"
        types = [types[0], TensorType(Elem.F32), TensorType(elem)]
    facts = node.op.onnx
    assert facts is not None
    by_input = _stated_inputs(node.op, opset)
    placed = dict(zip(_positions(by_input, len(types)), types, strict=True))
    for position, type in placed.items():
        formal = schema.input_at(position)
        if formal is None:
            return f"'{facts.type}' takes {len(schema.raw.inputs)} inputs at opset {opset}"
        if type is not None and type_spelling(type) not in formal.types:
            return f"'{facts.type}' takes no {type_spelling(type)} at opset {opset}"
    for position, formal in enumerate(schema.raw.inputs):
        needed = formal.option == formal.option.Single and position not in by_input
        if needed and placed.get(position) is None:
            return f"'{facts.type}' needs its input '{formal.name}' at opset {opset}"
    for index, result in enumerate(node.results):
        formal = schema.output_at(index)
        if result is not None and formal is None:
            return f"'{facts.type}' gives {len(schema.raw.outputs)} results at opset {opset}"
        if result is not None and formal and type_spelling(result.type) not in formal.types:
            return f"'{facts.type}' gives no {type_spelling(result.type)} at opset {opset}"
    return None


def _stated_inputs(op: Op, opset: int) -> set[int]:
    """Positions of the inputs that stand for fields of an op at an opset."""
    assert op.onnx is not None
    stated = {name for name, _ in encode(op)}
    inputs = op.onnx.attr_inputs.items()
    return {i for field, (since, i) in inputs if opset >= since and field in stated}


def _positions(by_input: set[int], count: int) -> list[int]:
    """The positions that operands take among the inputs of a node."""
    return [i for i in range(count + len(by_input)) if i not in by_input][:count]


def operands_taking(node: Node[Any], elem: Elem) -> set[int]:
    """Operands that may be of an element type by the newest schema of the node's op.

    All of them where there is no schema: an op of onnxruntime's own, or one that is written out;
    also those that it has not: the bias that a MatMul is written out with.
    """
    count = len(node.operands)
    facts = node.op.onnx
    schema = None if facts is None else schema_at(facts.domain, facts.type, NEWEST)
    if schema is None:
        return set(range(count))
    formals = map(schema.input_at, _positions(_stated_inputs(node.op, NEWEST), count))
    wanted = elem_spelling(elem)
    return {i for i, f in enumerate(formals) if f is None or wanted in f.types}


@functools.cache
def _class_defaults(cls: type[Op]) -> dict[str, Any]:
    fields = dataclasses.fields(cls)  # pyright: ignore[reportArgumentType] - every Op is one
    return {f.name: f.default for f in fields if f.default is not dataclasses.MISSING}


def _same(a: Any, b: Any) -> bool:
    return print_value(a, True) == print_value(b, True)


def spell(op: Op, elem: Elem | None, opset: int) -> Spelling:
    """Attributes and attribute inputs of a native op at an opset that it fits.

    ``elem`` is the element type of operand 0, which numbers as inputs take.
    """
    facts = op.onnx
    assert facts is not None
    schema = schema_at(facts.domain, facts.type, opset)
    attrs: dict[str, Any] = {}
    inputs: dict[int, tuple[str, Data]] = {}
    defaults = _class_defaults(type(op))
    for name, field in attribute_fields(type(op)).items():
        value = getattr(op, field)
        at_default = field in defaults and _same(value, defaults[field])
        by_input = facts.attr_inputs.get(field)
        if by_input is not None and opset >= by_input[0]:
            if not at_default:
                inputs[by_input[1]] = (field, _as_input(value, hints(type(op))[field], elem))
            continue
        if value is None or (at_default and (value == () or schema is None)):
            continue
        if schema is not None and schema.attribute_type(name) is None:
            continue
        if field in facts.elems:
            value = elem_code(Elem.named(value)) if isinstance(value, str) else value
        if isinstance(value, bool):
            value = int(value)
        known = schema is not None and name in schema.defaults and not isinstance(value, Data)
        known = known and field not in facts.stated
        if schema is not None and known and _same(value, schema.defaults[name]):
            continue
        attrs[name] = value
    return Spelling(attrs, inputs)


def _as_input(value: Any, annotation: Any, elem: Elem | None) -> Data:
    """A field as a tensor: integers are int64, other numbers of the type of operand 0."""
    if isinstance(value, Data):
        return value
    if annotation is float and elem is not None:
        return Data.of(np.asarray(value).astype(elem.dtype), elem)
    array = np.asarray(value)
    if array.dtype.kind in "iub" or array.size == 0:
        return Data.of(array.astype(np.int64))
    return Data.of(array.astype(np.float32))
