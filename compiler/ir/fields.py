"""The codec between frozen dataclasses (ops, passes, preprocessing) and their text.

A value of a field is a number, a text, a boolean, a type, an array (``Data``), or a tuple of
values. Printing leaves out fields at their default; reading checks the field's annotation and
names the field that does not fit. A field of type ``Flat`` takes every name that is not a field.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
import types
import typing
from collections.abc import Container, Mapping
from typing import Any, TypeVar

from qdqc.diagnostics import QdqcError, suggestion
from qdqc.ir.data import Data
from qdqc.ir.spelling import print_value

__all__ = ["FieldError", "Flat", "decode", "encode", "hints"]

T = TypeVar("T")


class FieldError(ValueError):
    """A field is unknown, missing, or of the wrong type; the text says which."""


_ESCAPE = "attr_"


class Flat(tuple[tuple[str, Any], ...]):
    """Pairs of name and value that print beside the fields, not as a list inside one.

    A name that is also a field's (``type``), or that would read as one, prints ``attr_type``.
    """

    __slots__ = ()

    def named(self, name: str, default: Any = None) -> Any:
        """The value of that name, or the default."""
        return next((value for key, value in self if key == name), default)


def _escaped(name: str, fields: Container[str]) -> str:
    bare = name
    while bare.startswith(_ESCAPE):
        bare = bare.removeprefix(_ESCAPE)
    return _ESCAPE + name if bare in fields else name


def _unescaped(name: str, fields: Container[str]) -> str:
    bare = name.removeprefix(_ESCAPE)
    return bare if _escaped(bare, fields) == name else name


@functools.cache
def hints(cls: type) -> dict[str, Any]:
    """Resolved annotations of the dataclass fields, in order.

    Raises QdqcError, with the file of the class, where one of them means nothing.
    """
    try:
        annotations = typing.get_type_hints(cls)
    except Exception as error:
        raise QdqcError(
            f"the annotations of class '{cls.__name__}' mean nothing: {error}",
            file=getattr(sys.modules.get(cls.__module__), "__file__", None),
            notes=["annotate each field with a type that the file defines or imports"],
        ) from error
    return {f.name: annotations[f.name] for f in dataclasses.fields(cls)}


def encode(obj: Any, elide: bool = False) -> list[tuple[str, str]]:
    """Fields that are not at their default, in order, as (name, text)."""
    out: list[tuple[str, str]] = []
    annotations = hints(type(obj))
    for f in dataclasses.fields(obj):
        value = getattr(obj, f.name)
        if isinstance(value, Flat):
            out.extend(
                (_escaped(name, annotations), print_value(v, elide=elide)) for name, v in value
            )
            continue
        if value is f.default and f.default is not dataclasses.MISSING:
            continue
        typed, default = _spelling(type(obj), f.name)
        text = print_value(value, typed, elide)
        if text != default:
            out.append((f.name, text))
    return out


@functools.cache
def _spelling(cls: type, name: str) -> tuple[bool, str | None]:
    """Whether numbers of a field read back as floats without a point, and its default's text."""
    annotation = hints(cls)[name]
    typed = _holds(float, annotation) and not _holds(int, annotation)
    field = next(f for f in dataclasses.fields(typing.cast(Any, cls)) if f.name == name)
    if field.default is dataclasses.MISSING:
        return typed, None
    return typed, print_value(field.default, typed)


def decode(cls: type[T], values: Mapping[str, Any], what: str) -> T:
    """An instance of a dataclass from read values; ``what`` names it in messages.

    Raises FieldError.
    """
    annotations = hints(cls)
    flat = next((name for name, a in annotations.items() if a is Flat), None)
    if flat is not None:
        loose = [(n, v) for n, v in values.items() if n not in annotations]
        values = {n: v for n, v in values.items() if n in annotations}
        values[flat] = Flat((_unescaped(n, annotations), v) for n, v in loose)
    for name in values:
        if name not in annotations:
            known = ", ".join(annotations) or "none"
            raise FieldError(
                f"{what} has no '{name}'{suggestion(name, annotations)} (it has: {known})"
            )
    for f in dataclasses.fields(typing.cast(Any, cls)):
        no_default = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if no_default and f.name not in values:
            raise FieldError(f"{what} needs '{f.name}'")
    fitted = {n: _fit(v, annotations[n], f"'{n}' of {what}") for n, v in values.items()}
    return cls(**fitted)


def _holds(kind: type, annotation: Any) -> bool:
    if annotation is kind:
        return True
    return any(_holds(kind, a) for a in typing.get_args(annotation))


def _describe(annotation: Any) -> str:
    names = {int: "an integer", float: "a number", str: "a text", bool: "true or false"}
    if annotation is Data:
        return "a tensor such as f32[1] dense[0.5]"
    if annotation in names:
        return names[annotation]
    if typing.get_origin(annotation) is tuple:
        return f"a list, each {_describe(typing.get_args(annotation)[0])}"
    if typing.get_origin(annotation) is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(annotation)))
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        parts = [_describe(a) for a in typing.get_args(annotation) if a is not type(None)]
        return " or ".join(parts)
    return getattr(annotation, "__name__", str(annotation))


def _fit(value: Any, annotation: Any, what: str) -> Any:
    """The value as the annotation wants it. Raises FieldError."""
    fitted = _try_fit(value, annotation)
    if fitted is _MISFIT:
        raise FieldError(f"{what} is {_describe(annotation)}, not {print_value(value)}")
    return fitted


_MISFIT = object()


def _try_fit(value: Any, annotation: Any) -> Any:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any or isinstance(annotation, TypeVar):
        return value
    if origin in (typing.Union, types.UnionType):
        fits = (_try_fit(value, a) for a in args)
        return next((f for f in fits if f is not _MISFIT), _MISFIT)
    if annotation is Flat:
        return value if isinstance(value, Flat) else _MISFIT
    if origin is typing.Literal:
        return value if value in args else _MISFIT
    if origin is tuple:
        return _fit_tuple(value, args)
    if annotation is type(None) or annotation is None:
        return None if value is None else _MISFIT
    if annotation is bool:
        return value if isinstance(value, bool) else _MISFIT
    if annotation is int:
        return value if isinstance(value, int) and not isinstance(value, bool) else _MISFIT
    if annotation is float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return float(value) if is_number else _MISFIT
    return value if isinstance(value, annotation) else _MISFIT


def _fit_tuple(value: Any, args: tuple[Any, ...]) -> Any:
    if not isinstance(value, tuple | list):
        return _MISFIT
    if len(args) == 2 and args[1] is Ellipsis:
        item_types = [args[0]] * len(value)
    elif len(args) != len(value):
        return _MISFIT
    else:
        item_types = list(args)
    items = tuple(_try_fit(v, t) for v, t in zip(value, item_types, strict=True))
    return _MISFIT if any(i is _MISFIT for i in items) else items
