"""How numbers, types and data are spelt. The grammar that reads it is ``text/qir.lark``."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from qdqc.ir.data import Data
from qdqc.ir.types import (
    Array,
    Elem,
    OptionalType,
    Quant,
    Range,
    SequenceType,
    TensorType,
    Type,
)

__all__ = [
    "INLINE_LIMIT",
    "SpellingError",
    "is_inline",
    "print_bare",
    "print_data",
    "print_entries",
    "print_float",
    "print_name",
    "print_string",
    "print_type",
    "print_value",
]

INLINE_LIMIT = 16
"""Arrays of this many elements or fewer stand in the text; larger ones in the sidecar."""

_ELIDED_DIGITS = 8
_NAME = re.compile(r"[\w./:$-]*[\w./$-]\Z")
_KEY = re.compile(r"[^\W\d]\w*\Z")


class SpellingError(ValueError):
    """A value has no text form."""


def print_name(name: str) -> str:
    """``%name``, quoted when it holds anything but word characters and ``./:$-``, or ends in
    a colon.
    """
    return "%" + print_bare(name)


def print_bare(name: str) -> str:
    """A name as it stands behind ``%`` or ``@``."""
    return name if _NAME.match(name) else print_string(name)


def print_string(text: str) -> str:
    """A text in quotes; what no editor shows is escaped."""
    return json.dumps(text, ensure_ascii=not text.isprintable())


def print_entries(entries: Iterable[tuple[str, str]]) -> str:
    """``{name = value, ...}`` from names and printed values."""
    parts = [f"{k if _KEY.match(k) else print_string(k)} = {v}" for k, v in entries]
    return "{" + ", ".join(parts) + "}"


def print_float(value: float, typed: bool = True) -> str:
    """The shortest text that reads back as the same number.

    Where the reader knows that a float is meant (``typed``) an integral one needs no point.
    Minus zero always keeps it.
    """
    if math.isnan(value):
        return "nan"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    text = repr(float(value))
    if typed and text.endswith(".0") and text != "-0.0":
        return text[:-2]
    return text


def print_value(value: Any, typed_floats: bool = False, elide: bool = False) -> str:
    """The value of an attribute or option as text. Raises SpellingError."""
    if value is None:
        return "none"
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, int | np.integer):
        return str(int(value))
    if isinstance(value, float | np.floating):
        return print_float(float(value), typed_floats)
    if isinstance(value, str):
        return print_string(value)
    if isinstance(value, TensorType | SequenceType | OptionalType):
        return print_type(value, elide)
    if isinstance(value, Data):
        head = print_type(TensorType(value.elem, value.shape))
        return f"{head} {print_data(value, elide)}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(print_value(v, typed_floats, elide) for v in value) + "]"
    if isinstance(value, Mapping):
        items: Mapping[str, Any] = value
        return print_entries((k, print_value(v, typed_floats, elide)) for k, v in items.items())
    raise SpellingError(f"a value of type {type(value).__name__} has no text form")


def print_data(data: Data, elide: bool = False) -> str:
    """``dense[...]`` up to 16 elements and for strings, else a reference by digest."""
    if data.strings is not None:
        return "dense[" + ", ".join(print_string(s) for s in data.strings) + "]"
    if data.is_elided:
        return f'elided("sha256:{data.digest}")'
    if data.size <= INLINE_LIMIT:
        return f"dense[{', '.join(_element(v) for v in data.array().reshape(-1))}]"
    if elide:
        return f'elided("sha256:{data.digest[:_ELIDED_DIGITS]}")'
    return f'resource("sha256:{data.digest}")'


def print_type(type: Type, elide: bool = False) -> str:
    """``f32[N,3,32,32]`` with its range or its quantization behind it."""
    if isinstance(type, SequenceType):
        return f"seq<{print_type(type.item, elide)}>"
    if isinstance(type, OptionalType):
        return f"opt<{print_type(type.item, elide)}>"
    if type.shape is None:
        text = f"{type.elem.text}[*]"
    else:
        dims = ",".join("?" if d is None else str(d) for d in type.shape)
        text = f"{type.elem.text}[{dims}]"
    if type.quant is not None:
        text += " " + _print_quant(type.quant, elide)
    if type.range is not None:
        text += " " + _print_range(type.range)
    return text


def _element(value: Any) -> str:
    """One element of a dense array; integral floats need no point, their type is known."""
    dtype = np.asarray(value).dtype
    if dtype.kind == "b":
        return "true" if value else "false"
    if dtype.kind in "iu" or Elem.of(dtype).is_integer:
        return str(int(value))
    if dtype.kind == "c":
        return f"[{print_float(value.real)}, {print_float(value.imag)}]"
    if dtype == np.float64:
        return print_float(float(value))
    return _print_narrow(value)


def _print_narrow(value: Any) -> str:
    """A float of 32 bits or fewer: the shortest text that rounds back to the same value."""
    exact = float(value)
    if math.isnan(exact) or math.isinf(exact) or exact == 0:
        return print_float(exact)
    return print_float(float(str(np.float32(exact))))


def _print_range(range: Range) -> str:
    numbers = (range.min, range.max, range.threshold)
    return f"range({', '.join(print_float(n) for n in numbers)})"


def _print_quant(quant: Quant, elide: bool) -> str:
    parts: list[str] = []
    if quant.axis is not None:
        parts.append(f"axis = {quant.axis}")
    if quant.block is not None:
        parts.append(f"block = {quant.block}")
    parts.append(f"scale = {_print_parameter(quant.scale, elide)}")
    if np.any(quant.zero_point):
        parts.append(f"zero_point = {_print_parameter(quant.zero_point, elide)}")
    return f"q({', '.join(parts)})"


def is_inline(array: Array) -> bool:
    """Whether a scale or zero point stands in the text as a number or a plain list."""
    return array.ndim == 0 or (array.ndim == 1 and array.size <= INLINE_LIMIT)


def _print_parameter(array: Array, elide: bool) -> str:
    """A scale or zero point: a number, a short list, or typed data.

    They are facts of the type, so they are never elided: without a sidecar they print whole.
    """
    if array.ndim == 0:
        return _element(array[()])
    if elide or is_inline(array):
        whole = "[" + ", ".join(_element(v) for v in array.reshape(-1)) + "]"
        return whole if array.ndim == 1 else _print_dense(array, whole)
    return print_value(Data.of(array))


def _print_dense(array: Array, whole: str) -> str:
    return f"{print_type(TensorType(Elem.of(array.dtype), array.shape))} dense{whole}"
