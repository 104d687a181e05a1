"""Which ONNX node is which op: the table that stands in the ops' ``Onnx`` facts, read backwards.

Nothing here needs onnx, so passes may use it: ``reveal`` turns an opaque node into its native
op once the inputs that the op takes as attributes have become constants.
"""

from __future__ import annotations

import importlib
import pkgutil
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.fields import FieldError, decode, hints
from qdqc.ir.graph import Module
from qdqc.ir.merge import compatible
from qdqc.ir.op import OPS, Op
from qdqc.ir.types import Array, Elem
from qdqc.ops.onnx_spellings import SPELLINGS, Spelt
from qdqc.ops.opaque import Opaque

__all__ = [
    "attribute_fields",
    "candidates",
    "computable",
    "defaults_of",
    "elem_code",
    "elem_of_code",
    "flags",
    "load_ops",
    "nativize",
    "reveal",
    "shorten",
]

_CODES = dict(
    zip(
        [
            "f32",
            "u8",
            "i8",
            "u16",
            "i16",
            "i32",
            "i64",
            "string",
            "bool",
            "f16",
            "f64",
            "u32",
            "u64",
            "c64",
            "c128",
            "bf16",
            "f8e4m3fn",
            "f8e4m3fnuz",
            "f8e5m2",
            "f8e5m2fnuz",
            "u4",
            "i4",
            "f4e2m1",
            "f8e8m0",
            "u2",
            "i2",
        ],
        range(1, 27),
        strict=True,
    )
)
_ELEMS = {code: Elem.named(text) for text, code in _CODES.items()}
_LIMIT = 4096
"""Inputs of more elements than this are never taken for attributes."""

_IMPLIED = {"pads": 0, "strides": 1, "dilations": 1, "output_padding": 0}
"""Numbers that a list of a window op holds when it might as well be absent."""


def elem_code(elem: Elem) -> int:
    """The number of an element type in ONNX files."""
    return _CODES[elem.text]


def elem_of_code(code: int) -> Elem | None:
    """The element type of that number in ONNX files; None for one that is unknown."""
    return _ELEMS.get(code)


def load_ops() -> None:
    """Import every file of ``compiler/ops``, so that the registry holds all ops."""
    import qdqc.ops

    for file in pkgutil.iter_modules(qdqc.ops.__path__):
        importlib.import_module(f"qdqc.ops.{file.name}")


def candidates(domain: str, type: str) -> list[type[Op]]:
    """The ops that an ONNX node of this type may be."""
    spelt = [c for c in OPS if c.onnx is not None and c.onnx.type == type]
    return [c for c in spelt if c.onnx is not None and c.onnx.domain == domain]


def attribute_fields(cls: type[Op]) -> dict[str, str]:
    """ONNX attribute names of an op with the names of its fields."""
    renames = {} if cls.onnx is None else cls.onnx.renames
    return {renames.get(name, name): name for name in hints(cls) if name != "clamp"}


def flags(classes: Iterable[type[Op]]) -> set[str]:
    """Those ONNX attributes of the ops that say yes or no."""
    named = [(cls, name, field) for cls in classes for name, field in attribute_fields(cls).items()]
    return {name for cls, name, field in named if hints(cls)[field] is bool}


def computable(cls: type[Op]) -> set[str]:
    """Fields for which the op has an operand too, ``computed_axes`` for ``axes``."""
    specs = (s.name for s in cls.operand_specs if s.name.startswith("computed_"))
    return {name.removeprefix("computed_") for name in specs}


def nativize(spelt: Spelt, module: Module) -> tuple[Op, list[Value | None]] | None:
    """The native op of an ONNX node with its operands, or None where it has none.

    Attributes must all have a field, and inputs that the op takes as attributes must be
    constants. ``spelt.attrs`` must state the schema's defaults of attributes that have fields.
    """
    adapted = replace(spelt, attrs=dict(spelt.attrs))
    adapter = SPELLINGS.get(spelt.type) if spelt.domain == "" else None
    if adapter is not None:
        changed = adapter(adapted, module)
        if changed is None:
            return None
        adapted = changed
    for cls in candidates(adapted.domain, adapted.type):
        native = _fit(cls, adapted)
        if native is not None:
            return native
    return None


def reveal(node: Node[Any]) -> tuple[Op, list[Value | None]] | None:
    """What an opaque node is natively, now that more of its inputs are constants; None if nothing.

    The caller replaces the node; nothing is changed here, save that constants which an old
    spelling needs may be added to the module.
    """
    if not isinstance(node.op, Opaque) or node.graphs:
        return None
    load_ops()
    module = node.graph.module
    before = set(module.constants)
    count = max((i + 1 for i, r in enumerate(node.results) if r is not None), default=0)
    spelt = Spelt(
        node.op.type,
        node.op.domain,
        node.op.version,
        dict(node.op.attrs),
        list(node.operands),
        count,
        node.name,
    )
    native = nativize(spelt, module)
    if native is not None and _takes(node, *native):
        return native
    for name in module.constants.keys() - before:
        module.leave(module.constants[name])
    return None


def _takes(node: Node[Any], op: Op, operands: Sequence[Value | None]) -> bool:
    """Whether the op takes the operands: a branch that never runs may hold what does not fit."""
    types = [None if r is None else r.type for r in node.results]
    trial = node.graph.insert(op, operands, types, before=node)
    try:
        inferred = op.infer_node(trial)
    except (ValueError, ArithmeticError):
        return False
    finally:
        node.graph.erase(trial)
    pairs = zip(types, inferred, strict=False)
    return all(a is None or b is None or compatible(a, b) for a, b in pairs)


def _fit(cls: type[Op], spelt: Spelt) -> tuple[Op, list[Value | None]] | None:
    facts = cls.onnx
    assert facts is not None
    named = attribute_fields(cls)
    values: dict[str, Any] = {}
    for name, value in spelt.attrs.items():
        if name in named:
            if not _is_implied(cls, named[name], value):
                values[named[name]] = value
        elif name not in facts.ignored:
            return None
    inputs = {f: i for f, (since, i) in facts.attr_inputs.items() if spelt.version >= since}
    given = {f: spelt.operands[i] for f, i in inputs.items() if i < len(spelt.operands)}
    arrays = {f: _contents(v) for f, v in given.items() if v is not None}
    if any(array is None for array in arrays.values()):
        if not computable(cls) >= inputs.keys():
            return None
        inputs, arrays = {}, {}
    values |= arrays
    if facts.result_count is not None:
        as_attributes = [f for f in facts.attr_inputs if f in values]
        if not as_attributes and not values.get(facts.result_count):
            values[facts.result_count] = spelt.results
    taken = set(inputs.values())
    operands = [v for i, v in enumerate(spelt.operands) if i not in taken]
    if set(cls.graphs) != set(spelt.graphs):
        return None
    if not _operands_fit(cls, operands) or spelt.results > _most_results(cls):
        return None
    annotations = hints(cls)
    try:
        plain = {f: _plain(v, annotations[f], f, f in facts.elems) for f, v in values.items()}
        return decode(cls, plain, cls.name), operands
    except (FieldError, ValueError):
        return None


def _is_implied(cls: type[Op], field: str, value: Any) -> bool:
    """Whether a list of a window op says what its absence says: no padding, steps of one."""
    meant = _IMPLIED.get(field)
    listed = isinstance(value, tuple | list) and getattr(cls, field, None) == ()
    return meant is not None and listed and all(v == meant for v in value)


def _contents(value: Value) -> Array | None:
    """The contents of a constant that may become an attribute."""
    if not isinstance(value, Constant) or value.data.is_elided or value.data.size > _LIMIT:
        return None
    return value.data.array()


def _operands_fit(cls: type[Op], operands: Sequence[Value | None]) -> bool:
    specs = cls.operand_specs
    variadic = bool(specs) and specs[-1].variadic
    if any(v is not None and v.elem is None for v in operands):
        return False
    while operands and operands[-1] is None:
        operands = operands[:-1]
    if len(operands) > len(specs) and not variadic:
        return False
    for index, spec in enumerate(specs):
        absent = index >= len(operands) or operands[index] is None
        if absent and not spec.optional and not spec.variadic:
            return False
    return True


def _most_results(cls: type[Op]) -> int:
    specs = cls.result_specs
    return 1 << 30 if specs and specs[-1].variadic else len(specs)


def shorten(value: float) -> float:
    """The shortest number that rounds to the same float32: 1e-05 for 9.99999974e-06."""
    return float(str(np.float32(value)))


def _kinds(annotation: Any) -> set[Any]:
    """The simple types that occur in an annotation."""
    args = [a for a in typing.get_args(annotation) if a is not Ellipsis]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, tuple):
        return set().union(*(_kinds(a) for a in args))
    if typing.get_origin(annotation) is typing.Literal:
        return {type(a) for a in args}
    return {annotation}


def _plain(value: Any, annotation: Any, field: str, is_elem: bool) -> Any:
    """An ONNX attribute, or a constant in place of one, as the field's annotation wants it."""
    kinds = _kinds(annotation)
    is_list = tuple in {typing.get_origin(a) for a in (annotation, *typing.get_args(annotation))}
    if isinstance(value, np.ndarray):
        return _from_array(value, annotation, is_list, field)
    if bool in kinds and isinstance(value, int):
        return bool(value)
    if is_elem and isinstance(value, int):
        return _ELEMS[value].text if value in _ELEMS else None if value == 0 else value
    return value


def _from_array(array: Array, annotation: Any, is_list: bool, field: str) -> Any:
    if array.dtype.kind == "O":
        raise ValueError(f"{field}: strings are not an attribute")
    items = [x.item() for x in array.reshape(-1)]
    if array.dtype.kind not in "iub":
        wide = array.dtype == np.float64
        items = [float(x) if wide else shorten(float(x)) for x in items]
    if is_list:
        return tuple(items)
    if len(items) != 1:
        raise ValueError(f"{field}: {len(items)} elements in place of one number")
    return _plain(items[0], annotation, field, False)


def defaults_of(cls: type[Op], known: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a schema's defaults that the op has a field for."""
    named = attribute_fields(cls)
    return {name: value for name, value in known.items() if name in named}
