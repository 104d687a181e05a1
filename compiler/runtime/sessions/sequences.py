"""Sequences and optionals on their way into onnxruntime and out of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["as_given", "flattened"]


def as_given(value: Any) -> Any:
    """An input as onnxruntime takes it: an array, or a list of arrays for a sequence.

    None stays what it is: an optional input that holds nothing.
    """
    if value is None:
        return None
    return [np.asarray(v) for v in value] if isinstance(value, list) else np.asarray(value)


def flattened(values: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
    """Arrays by name: the tensors of a sequence ``s`` are ``s[0]``, ``s[1]`` and so on.

    An optional that holds nothing has no array.
    """
    out: dict[str, npt.NDArray[Any]] = {}
    for name, value in values.items():
        if isinstance(value, list):
            out |= flattened({f"{name}[{index}]": part for index, part in enumerate(value)})
        elif value is not None:
            out[name] = np.asarray(value)
    return out
