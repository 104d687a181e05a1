"""The digest that ties a calibration table to its model."""

from __future__ import annotations

import hashlib

from qdqc.ir.clone import clone
from qdqc.ir.graph import Module
from qdqc.ir.types import TensorType
from qdqc.text.printer import print_module

__all__ = ["module_digest"]


def module_digest(module: Module) -> str:
    """sha256 of the module's text with its weights' digests, in hexadecimal.

    The header, calibrated ranges and planned modes do not count: a model stays the same model
    when it is calibrated.
    """
    plain = clone(module)
    plain.header.clear()
    for value in list(plain.value_names()):
        copied = plain.value(value)
        if copied is not None and isinstance(copied.type, TensorType):
            copied.type = copied.type.with_range(None)
    for node in plain.walk():
        node.mode = None
    return hashlib.sha256(print_module(plain).encode()).hexdigest()
