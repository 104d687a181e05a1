"""Forms of arguments that several commands take."""

from __future__ import annotations

import argparse
import ast
import math
import re
from typing import Any

__all__ = [
    "binding",
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
_BARE = re.compile(r"""(?<![\w"'])([A-Za-z_]\w*|\?)(?![\w"'])""")
_NAME = re.compile(r"[A-Za-z_]\w*|\?")
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
        raise argparse.ArgumentTypeError(f"'{text}' is not a number such as 0.99")
    return number


def floats(text: str) -> tuple[float, ...]:
    """``1,2.5`` as numbers."""
    try:
        return tuple(float(n) for n in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a list of numbers such as 1,2.5"
        ) from None


def indices(text: str) -> tuple[int, ...]:
    """``1,3`` as whole numbers."""
    try:
        return tuple(int(n) for n in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of whole numbers") from None


def pair(text: str) -> tuple[int, int]:
    """``h,w`` as two whole numbers."""
    numbers = indices(text)
    if len(numbers) != 2:
        raise argparse.ArgumentTypeError(f"'{text}' is not a height and width such as 256,256")
    return numbers[0], numbers[1]


def tolerance(text: str) -> tuple[float, float]:
    """``cos,euclid`` as two numbers."""
    numbers = floats(text)
    if len(numbers) != 2:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a pair of similarities such as 0.99,0.99"
        )
    return numbers[0], numbers[1]


def shapes(text: str) -> list[list[int | str]]:
    """``[[N,3,224,?],[1]]`` as shapes: sizes, names, or what is open; one may stand alone."""
    try:
        value: Any = ast.literal_eval(_BARE.sub(r'"\1"', text))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = None
    if isinstance(value, list) and value and not any(isinstance(n, list) for n in value):
        value = [value]
    if not isinstance(value, list) or not value or not all(map(_is_shape, value)):
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a list of shapes such as [[1,3,224,224]] or [[N,3,?,?]]"
        )
    return value


def binding(text: str) -> tuple[str, Any]:
    """``name=value`` as a name, and a number, a truth or lists of them."""
    name, equals, value = text.rpartition("=")
    spelling = value.strip()
    try:
        literal = ast.literal_eval({"true": "True", "false": "False"}.get(spelling, spelling))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        literal = None
    if not equals or not name or not _is_numbers(literal):
        raise argparse.ArgumentTypeError(
            f"'{text}' is not an input and its value, such as use_cache=true or sizes=[1,2]"
        )
    return name, literal


def memory(text: str) -> int:
    """``8GB``, ``500MiB`` or plain bytes as bytes."""
    match = _MEMORY.fullmatch(text.strip())
    size = 0 if match is None else int(float(match[1]) * _UNITS.get(match[2].upper(), 0))
    if not size:
        raise argparse.ArgumentTypeError(f"'{text}' is not a size of memory such as 8GB or 500MiB")
    return size


def _is_shape(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_dim, value))


def _is_dim(value: object) -> bool:
    if isinstance(value, str):
        return _NAME.fullmatch(value) is not None
    return type(value) is int and value >= 0


def _is_numbers(value: object) -> bool:
    if isinstance(value, list):
        return all(map(_is_numbers, value))
    return isinstance(value, bool | int | float)
