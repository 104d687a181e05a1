"""Forms of arguments that several commands take, and the samples that they check with."""

from __future__ import annotations

import argparse
import ast
import math
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from qdqc.diagnostics import QdqcError

if TYPE_CHECKING:
    from qdqc.data.dataset import Dataset
    from qdqc.data.fit import Sample
    from qdqc.ir.graph import Module

__all__ = [
    "check_samples",
    "finite",
    "floats",
    "indices",
    "machine_memory",
    "memory",
    "names",
    "pair",
    "shapes",
    "tolerance",
]

_UNITS = {
    "": 1,
    **{unit: 1000**power for power, unit in enumerate("KMGT", 1)},
    **{f"{unit}I": 1024**power for power, unit in enumerate("KMGT", 1)},
}
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?", re.IGNORECASE)


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


def machine_memory() -> int | None:
    """Bytes of memory that this machine has; None where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def _is_shape(found: object) -> bool:
    return isinstance(found, list) and all(isinstance(n, int) and n >= 0 for n in found)


def check_samples(
    reference: Module,
    given: str | None,
    count: int,
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> tuple[Dataset | list[Sample], str]:
    """Samples to check with, and where they come from: the given file or folder, or random.

    ``ranges`` bound random inputs by name. A model whose symbols are no free sizes (a batch that
    an exporter fixed inside) gets random inputs with 1 for every symbol.
    """
    from qdqc.data.dataset import open_dataset
    from qdqc.data.random_inputs import random_samples
    from qdqc.runtime.sessions.session import Runner

    if given:
        return open_dataset(given, reference.graph), given
    samples = random_samples(reference.graph, count, ranges)
    if all(v.tensor.static_shape is not None for v in reference.graph.inputs):
        return samples, "random"
    try:
        Runner(reference).run(samples[0])
    except QdqcError:
        samples = random_samples(reference.graph, count, ranges, symbol_size=1)
    return samples, "random"
