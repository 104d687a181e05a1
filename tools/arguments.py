"""Forms of arguments that several commands take."""

from __future__ import annotations

import argparse
import ast
import math
import re
from typing import Any

__all__ = [
    "count",
    "finite",
    "floats",
    "indices",
    "memory",
    "names",
    "pair",
    "positive",
    "shapes",
    "tolerance",
]

_UNITS = {
    "": 1,
    **{unit: 1000**power for power, unit in enumerate("KMGT", 1)},
    **{f"{unit}I": 1024**power for power, unit in enumerate("KMGT", 1)},
}
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?", re.IGNORECASE)


def count(text: str) -> int:
    """A whole number from 0 on."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def positive(text: str) -> int:
    """A whole number from 1 on."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return value


def names(text: str) -> list[str]:
    """``a,b`` as a list of names."""
    return [n.strip() for n in text.split(",") if n.strip()]


def finite(text: str) -> float:
    """A number that is neither infinite nor none at all."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"'{text}' is no number such as 0.99")
    return number


def floats(text: str) -> tuple[float, ...]:
    """``1,2.5`` as numbers."""
    try:
        return tuple(float(n) for n in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no list of numbers such as 1,2.5") from None


def indices(text: str) -> tuple[int, ...]:
    """``1,3`` as whole numbers."""
    try:
        return tuple(int(n) for n in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no list of whole numbers") from None


def pair(text: str) -> tuple[int, int]:
    """``h,w`` as two whole numbers."""
    found = indices(text)
    if len(found) != 2:
        raise argparse.ArgumentTypeError(f"'{text}' is no height and width such as 256,256")
    return found[0], found[1]


def tolerance(text: str) -> tuple[float, float]:
    """``cos,euclid`` as two numbers."""
    found = floats(text)
    if len(found) != 2:
        raise argparse.ArgumentTypeError(f"'{text}' is no pair of similarities such as 0.99,0.99")
    return found[0], found[1]


def shapes(text: str) -> list[list[int]]:
    """``[[1,3,224,224],[1]]`` as shapes; one shape may stand alone."""
    try:
        found: Any = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        found = None
    if isinstance(found, list) and found and all(isinstance(n, int) for n in found):
        found = [found]
    if not isinstance(found, list) or not found or not all(map(_is_shape, found)):
        raise argparse.ArgumentTypeError(f"'{text}' is no list of shapes such as [[1,3,224,224]]")
    return found


def memory(text: str) -> int:
    """``8GB``, ``500MiB`` or plain bytes as bytes."""
    found = _MEMORY.fullmatch(text.strip())
    size = 0 if found is None else int(float(found[1]) * _UNITS.get(found[2].upper(), 0))
    if not size:
        raise argparse.ArgumentTypeError(f"'{text}' is no size of memory such as 8GB or 500MiB")
    return size


def _is_shape(found: object) -> bool:
    return isinstance(found, list) and all(isinstance(n, int) and n >= 0 for n in found)
