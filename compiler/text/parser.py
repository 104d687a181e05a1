"""Reads the text form. The syntax is ``qir.lark``; the actions build the module at once."""

from __future__ import annotations

import functools
import importlib
import threading
from collections.abc import Callable
from importlib import resources
from typing import TYPE_CHECKING, Any

from qdqc.diagnostics import QdqcError
from qdqc.ir.dims import Dim
from qdqc.ir.graph import Module
from qdqc.text.source import Source

if TYPE_CHECKING:
    from lark import Lark

    from qdqc.text.modules import ModuleReader
    from qdqc.text.values import Resolve

__all__ = ["parse_dim", "parse_module"]

_READING = threading.RLock()
"""The grammar is built once, with one reader's actions: one text at a time."""


def parse_module(
    text: str,
    *,
    file: str = "<text>",
    resolve: Resolve | None = None,
    open_sidecar: Callable[[str], Resolve] | None = None,
    verify: bool = False,
) -> Module:
    """The module of a text.

    ``resolve`` gives the bytes of a constant by its sha256 (hexadecimal), None where it has
    not got it; ``open_sidecar`` gives such a function for the file that the header names as
    ``weights``. Raises QdqcError, located in ``file``, at the first thing that is wrong.
    """
    importlib.import_module("qdqc.ops")  # enters the ops into the registry
    source = Source(text, file)
    with _READING:
        lark, reader = _grammar()
        reader.begin(source, resolve, open_sidecar)
        try:
            module: Any = _parse(lark, text, source)
        finally:
            reader.end()
    if verify:
        from qdqc.ir.verify import check

        check(module)
    return module


def parse_dim(text: str) -> Dim:
    """A dimension from its text: a size, ``?``, or an expression. Raises ValueError."""
    from lark import UnexpectedInput

    if text == "?":
        return None
    with _READING:
        lark, _ = _grammar()
        try:
            dim: Any = lark.parse(text, start="dim")
        except UnexpectedInput:
            raise ValueError("write it like N, 2*N+1 or (H+1)//2") from None
        except ZeroDivisionError:
            raise ValueError("it divides by zero") from None
    return dim


@functools.cache
def _grammar() -> tuple[Lark, ModuleReader]:
    """The parser and its actions; lark is loaded here and not before."""
    from lark import Lark

    from qdqc.text.modules import ModuleReader

    reader = ModuleReader()
    reader.parse_dim = parse_dim
    grammar = resources.files("qdqc.text").joinpath("qir.lark").read_text("utf-8")
    lark = Lark(
        grammar,
        parser="lalr",
        start=["module", "dim"],
        transformer=reader,
        maybe_placeholders=True,
    )
    return lark, reader


def _parse(lark: Lark, text: str, source: Source) -> Any:
    from lark import UnexpectedCharacters, UnexpectedToken

    try:
        return lark.parse(text, start="module")
    except UnexpectedToken as error:
        raise _unexpected(source, error) from None
    except UnexpectedCharacters as error:
        raise _unreadable(source, error) from None


def _unexpected(source: Source, error: Any) -> QdqcError:
    from qdqc.text.expected import describe, describe_token

    expected = error.accepts or error.expected
    actual = describe_token(error.token.type, str(error.token))
    message = f"expected {describe(expected)}, found {actual}"
    return source.error(message, error.token)


def _unreadable(source: Source, error: Any) -> QdqcError:
    from lark import Token

    from qdqc.text.expected import describe

    place = Token("CHARACTER", error.char, line=error.line, column=error.column)
    known = set(error.allowed or ()) - {"COMMENT", "SPACE"}
    if error.char == '"':
        return source.error("the quoted text does not end on this line", place)
    return source.error(f"expected {describe(known)}, found '{error.char}'", place)
