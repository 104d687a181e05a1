"""Reads the leaves of the text: numbers, strings, types, quantization, contents of constants."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from lark import Token

from qdqc.diagnostics import QdqcError, suggestion
from qdqc.ir.data import Buffer, Data, packed_size
from qdqc.ir.dims import Dim, Expr, symbol
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
from qdqc.text.source import Source

__all__ = ["DEEPEST", "Resolve", "ValueReader"]

Resolve: TypeAlias = Callable[[str], Buffer | None]
Contents: TypeAlias = tuple[Token, Any]
"""How a constant gives its contents (``dense``, ``resource``, ``elided``), and what it gives."""

_PIECE = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*")+')
_DIGEST = re.compile(r"sha256:([0-9a-f]{1,64})\Z")
DEEPEST = 64
"""Lists, types, expressions and graphs nest up to here: what walks them may recurse."""

_QUANT_KEYS = ("axis", "block", "scale", "zero_point")


class ValueReader:
    """The actions of the grammar for everything below a node.

    Lark calls a method by the name of its rule, with the rule's children in a list, or by the
    name of a terminal, with the token.
    """

    def __init__(self) -> None:
        self.source = Source("", "")
        self.resolve: Resolve | None = None
        self.parse_dim: Callable[[str], Dim] = int
        self._tensors: dict[str, TensorType] = {}
        self._numbers: dict[str, tuple[float, ...]] = {}
        self._dims: dict[str, Dim] = {}

    def start(self, source: Source, resolve: Resolve | None) -> None:
        """Begin with another text."""
        self.source = source
        self.resolve = resolve
        self._tensors.clear()
        self._numbers.clear()

    def number(self, token: Token) -> float:
        return self._number(token, token)

    def _number(self, text: str, token: Token) -> float:
        try:
            return int(text)
        except ValueError:
            if text.strip(" \t+-").isdecimal():
                raise self.source.error("the number has too many digits", token) from None
            return float(text)

    def numbers(self, token: Token) -> tuple[float, ...]:
        read = self._numbers.get(token)
        if read is None:
            read = tuple(self._number(t, token) for t in token[1:-1].split(","))
            self._numbers[str(token)] = read
        return read

    def string(self, token: Token) -> str:
        return self.unquoted(token, str(token))

    def unquoted(self, token: Token, text: str) -> str:
        try:
            return json.loads(text)
        except ValueError as error:
            raise self.source.error(
                f"the quoted text has an unknown escape: {error}", token
            ) from None

    def true(self, _token: Token) -> bool:
        return True

    def false(self, _token: Token) -> bool:
        return False

    def none(self, _token: Token) -> None:
        return None

    def list(self, items: list[Any]) -> tuple[Any, ...]:
        entries = tuple(items)
        self._refuse_deep(entries)
        return entries

    def attribute(self, items: list[Any]) -> tuple[str, Any]:
        self._refuse_deep(items[1])
        return items[0], items[1]

    def _refuse_deep(self, value: Any) -> None:
        if _depth(value) > DEEPEST:
            raise QdqcError("values are nested too deep", file=self.source.file)

    def attributes(self, items: list[tuple[str, Any]]) -> dict[str, Any]:
        """Keys stay tokens where they can, so that an error finds its place."""
        values: dict[str, Any] = {}
        for key, value in items:
            if key in values:
                raise self.source.error(f"'{key}' is given twice", self.key_place(key, items))
            values[key] = value
        return values

    def key_place(self, key: str, items: list[tuple[str, Any]]) -> Token:
        """A token at or near a key."""
        tokens = [k for k, _ in items if isinstance(k, Token)]
        same = [k for k in tokens if k == key]
        return (same or tokens or [Token("WORD", key)])[-1]

    def mapping(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        return {str(k): v for k, v in items[0].items()}

    def tensor(self, token: Token) -> TensorType:
        type = self._tensors.get(token)
        if type is None:
            type = self._tensors[str(token)] = self._read_tensor(token)
        return type

    def _read_tensor(self, token: Token) -> TensorType:
        name, _, rest = token.partition("[")
        try:
            elem = Elem.named(name)
        except KeyError:
            known = [e.text for e in Elem]
            hint = suggestion(name, known) or f" (there are: {', '.join(known)})"
            raise self.source.error(f"unknown element type '{name}'{hint}", token) from None
        body = rest[:-1].strip()
        if body == "*":
            return TensorType(elem)
        if not body:
            return TensorType(elem, ())
        pieces = _PIECE.findall(body) if '"' in body else body.split(",")
        return TensorType(elem, tuple(self._dim(p.strip(), token) for p in pieces))

    def _dim(self, text: str, token: Token) -> Dim:
        if text.isdecimal() and len(text) < 20:
            return int(text)
        if text == "?":
            return None
        if text.count("(") > DEEPEST or len(text) > 5000 or text.isdecimal():
            raise self.source.error("the dimension is too long", token)
        if text not in self._dims:
            try:
                self._dims[text] = self.parse_dim(text)
            except ValueError as error:
                raise self.source.error(f"bad dimension '{text}': {error}", token) from None
        dim = self._dims[text]
        if isinstance(dim, int) and dim < 0:
            raise self.source.error(f"dimension '{text}' is negative", token)
        return dim

    def quantized(self, items: list[Any]) -> TensorType:
        return TensorType(items[0].elem, items[0].shape, items[1])

    def ranged(self, items: list[Any]) -> TensorType:
        return replace(items[0], range=items[1])

    def quantized_ranged(self, items: list[Any]) -> TensorType:
        return replace(items[0], quant=items[1], range=items[2])

    def sequence(self, items: list[Type]) -> SequenceType:
        self._refuse_deep(items[0])
        return SequenceType(items[0])

    def optional(self, items: list[Type]) -> OptionalType:
        self._refuse_deep(items[0])
        return OptionalType(items[0])

    def range(self, items: list[float]) -> Range:
        return Range(*(float(n) for n in items))

    def quant(self, items: list[tuple[str, Any]]) -> Quant:
        given = self.attributes(items)
        for key in given:
            if key not in _QUANT_KEYS:
                hint = suggestion(key, _QUANT_KEYS) or f" (it has: {', '.join(_QUANT_KEYS)})"
                raise self.source.error(f"q(...) has no '{key}'{hint}", self.key_place(key, items))
        if "scale" not in given:
            raise self.source.error("q(...) needs 'scale'", self.key_place("scale", items))
        for key in ("axis", "block"):
            if key in given and type(given[key]) is not int:
                raise self.source.error(f"'{key}' is an integer", self.key_place(key, items))
        key = "scale"
        try:
            scale = _parameter(given[key], np.float32)
            key = "zero_point"
            zeros = _parameter(given.get(key, 0), np.int64)
            return Quant.make(scale, zeros, given.get("axis"), given.get("block"))
        except (ValueError, TypeError, OverflowError) as error:
            raise self.source.error(f"bad '{key}': {error}", self.key_place(key, items)) from None

    def dense(self, items: list[Any]) -> Contents:
        return items[0], items[1]

    resource = elided = dense

    def data(self, items: list[Any]) -> Data:
        return self.make_data(items[0], items[1])

    def make_data(self, type: Type, contents: Contents) -> Data:
        """Contents of a constant of that type. Raises QdqcError."""
        token, given = contents
        shape = type.static_shape if isinstance(type, TensorType) else None
        if not isinstance(type, TensorType) or shape is None:
            raise self.source.error("a constant needs a tensor type with a known shape", token)
        if token == "dense":
            try:
                return _dense(type.elem, shape, given)
            except (ValueError, TypeError, OverflowError) as error:
                raise self.source.error(str(error), token) from None
        digest = _DIGEST.match(given)
        if digest is None or (token == "resource" and len(digest[1]) != 64):
            raise self.source.error(f"'{given}' is not a digest 'sha256:...'", token)
        if type.elem is Elem.STRING:
            raise self.source.error("strings stand in the text, as dense[...]", token)
        if token == "elided":
            return Data.elided(type.elem, shape, digest[1])
        return self._resource(type.elem, shape, digest[1], token)

    def _resource(self, elem: Elem, shape: tuple[int, ...], digest: str, token: Token) -> Data:
        if self.resolve is None:
            raise self.source.error(
                "the contents of this constant are in a sidecar, which was not given",
                token,
                notes=["read the .qir from its folder, or print it with elided weights"],
            )
        try:
            buffer = self.resolve(digest)
        except QdqcError as error:
            d = error.diagnostic
            raise self.source.error(d.message, token, notes=d.notes) from None
        if buffer is None:
            raise self.source.error(
                f"the sidecar has no tensor sha256:{digest}",
                token,
                notes=["write the model again with the command that made it"],
            )
        data = Data(elem, shape, buffer, digest)
        want = packed_size(elem, data.size)
        if buffer.nbytes != want:
            raise self.source.error(
                f"the sidecar holds {buffer.nbytes} bytes for this constant, its type takes {want}",
                token,
            )
        return data

    def add(self, items: list[Any]) -> int | Expr:
        return items[0] + items[1]

    def subtract(self, items: list[Any]) -> int | Expr:
        return items[0] - items[1]

    def negate(self, items: list[Any]) -> int | Expr:
        return -items[0]

    def multiply(self, items: list[Any]) -> int | Expr:
        return items[0] * items[1]

    def divide(self, items: list[Any]) -> int | Expr:
        return items[0] // items[2]

    def symbol(self, items: list[str]) -> Expr:
        return symbol(str(items[0]))

    def size(self, token: Token) -> int:
        return int(token)

    NUMBER, NUMBERS, STRING, TENSOR, SIZE = number, numbers, string, tensor, size
    TRUE, FALSE, NONE = true, false, none


def _depth(value: Any) -> int:
    """How deep lists, mappings and types are nested."""
    if isinstance(value, SequenceType | OptionalType):
        return 1 + _depth(value.item)
    if isinstance(value, dict):
        value = tuple(value.values())
    if not isinstance(value, tuple):
        return 0
    kinds = (tuple, dict, SequenceType, OptionalType)
    return 1 + max((_depth(v) for v in value if isinstance(v, kinds)), default=0)


def _parameter(given: Any, dtype: npt.DTypeLike) -> Array:
    """A scale or zero point. Raises ValueError, TypeError, OverflowError."""
    if isinstance(given, Data):
        if given.is_elided:
            raise ValueError("scales and zero points can't be elided")
        return given.array()
    kinds = (int,) if dtype is np.int64 else (int, float)
    items = given if isinstance(given, tuple) else (given,)
    if any(type(n) not in kinds for n in items):
        raise TypeError(f"not {'integers' if dtype is np.int64 else 'numbers'}")
    with np.errstate(over="ignore"):
        return np.array(given, dtype=dtype)


def _dense(elem: Elem, shape: tuple[int, ...], given: tuple[Any, ...]) -> Data:
    """Contents from a list in the text. Raises ValueError, TypeError, OverflowError."""
    count = 1
    for size in shape:
        count *= size
    if len(given) != count:
        raise ValueError(f"{len(given)} elements are given, the type has {count}")
    if elem is Elem.STRING:
        _need(given, (str,), "strings in quotes")
        return Data(elem, shape, None, strings=given)
    if elem is Elem.BOOL:
        _need(given, (bool,), "true or false")
        return Data.of(np.array(given, np.bool_).reshape(shape))
    if elem.is_integer:
        _need(given, (int,), "integers")
        low, high = elem.limits
        for number in given:
            if not low <= number <= high:
                raise ValueError(f"{number} does not fit {elem.text} ({low} to {high})")
        wide = np.uint64 if elem is Elem.U64 else np.int64
        return Data.of(np.array(given, wide).reshape(shape).astype(elem.dtype), elem)
    if elem in (Elem.C64, Elem.C128):
        return _complex(elem, shape, given)
    _need(given, (int, float), "numbers")
    exact = np.array(given, np.float64).reshape(shape)
    with np.errstate(over="ignore", invalid="ignore"):
        array = exact.astype(elem.dtype)
        lost = np.isfinite(exact) & ~np.isfinite(array.astype(np.float64))
    if lost.any():
        raise ValueError(f"{exact[lost].reshape(-1)[0]:g} does not fit {elem.text}")
    return Data.of(array, elem)


def _complex(elem: Elem, shape: tuple[int, ...], given: tuple[Any, ...]) -> Data:
    numbers: list[complex] = []
    for pair in given:
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise TypeError(f"elements of {elem.text} are pairs [real, imaginary]")
        _need(pair, (int, float), "numbers")
        numbers.append(complex(*pair))
    return Data.of(np.array(numbers, elem.dtype).reshape(shape), elem)


def _need(given: tuple[Any, ...], kinds: tuple[type, ...], what: str) -> None:
    if not all(type(v) in kinds for v in given):
        raise TypeError(f"elements are {what}")
