"""Text in and out of Python, without files."""

from __future__ import annotations

from pathlib import Path

from qdqc.ir.graph import Module
from qdqc.text.parser import parse_module
from qdqc.text.printer import print_module
from qdqc.text.sidecar import Sidecar, tensors
from qdqc.text.values import Resolve

__all__ = ["from_text", "to_text"]


def to_text(module: Module, *, weights: bool = True) -> str:
    """The text of a module; ``weights=False`` leaves the contents of larger constants out.

    Larger constants stand there by digest in any case; ``from_text`` finds them elsewhere.
    """
    return print_module(module, elide=not weights)


def from_text(text: str, *, weights: Module | str | Path | None = None) -> Module:
    """The module of a text.

    Larger constants are found by digest in ``weights``: a module or the path of a sidecar.
    Raises QdqcError, located in the text, where it can't be read.
    """
    resolve: Resolve | None = None
    if isinstance(weights, Module):
        resolve = _finder(weights)
    elif weights is not None:
        resolve = Sidecar(Path(weights)).get
    return parse_module(text, resolve=resolve)


def _finder(module: Module) -> Resolve:
    weights = tensors(module)
    return lambda digest: weights[digest].buffer() if digest in weights else None
