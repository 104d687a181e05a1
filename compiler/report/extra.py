"""Libraries that are installed as an extra."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from qdqc.diagnostics import QdqcError

__all__ = ["library"]


def library(name: str, who: str, extra: str, otherwise: str) -> Any:
    """The module of that name, which ``who`` needs and the extra installs.

    Raises QdqcError where it is missing, with ``otherwise``, what does without it.
    """
    try:
        return import_module(name)
    except ImportError:
        raise QdqcError(
            f"{who} needs '{name.partition('.')[0]}', which is not installed",
            notes=[f"pip install 'qdqc[{extra}]'{otherwise}"],
        ) from None
