"""Evaluates nodes that depend on constants alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from qdqc.ir.core import Node
from qdqc.ir.excerpt import excerpt
from qdqc.runtime.sessions.session import Runner

__all__ = ["evaluate"]


def evaluate(nodes: Sequence[Node[Any]], wanted: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """The values of that names, computed by onnxruntime without its optimisations.

    The nodes stand in order and read constants and each other only. Raises QdqcError where
    onnxruntime can't compute them.
    """
    return Runner(excerpt(nodes, wanted), optimise="off", threads=1).run({})
