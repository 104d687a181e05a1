"""One thread for numpy's matrix products, where many small ones run side by side."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
from collections.abc import Callable, Generator

import numpy as np

__all__ = ["single_threaded"]

_PREFIXES = ("scipy_openblas_{}64_", "scipy_openblas_{}", "openblas_{}64_", "openblas_{}")
"""How builds of OpenBLAS name their functions."""


@contextlib.contextmanager
def single_threaded() -> Generator[None]:
    """Let OpenBLAS use one thread inside; another BLAS is left as it is.

    Its threads wait for each other in a busy loop, so that beside other work a product of a
    millisecond takes ten: where samples or layers are many, they share the cores better.
    """
    get, set_ = _function("get_num_threads"), _function("set_num_threads")
    if get is None or set_ is None:
        yield
        return
    before = get()
    set_(1)
    try:
        yield
    finally:
        set_(before)


def _function(name: str) -> Callable[..., int] | None:
    """A function of the OpenBLAS that numpy has loaded; None where it has another."""
    with contextlib.suppress(ImportError, OSError, AttributeError):
        extension = importlib.import_module(f"{np.__name__}._core._multiarray_umath")
        library = ctypes.CDLL(extension.__file__)
        for prefix in _PREFIXES:
            function = getattr(library, prefix.format(name), None)
            if function is not None:
                return function
    return None
