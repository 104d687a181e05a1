"""Opens a module for some of its values, as calibration wants it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qdqc.ir.graph import Module

__all__ = ["open_taps_of"]


def open_taps_of(
    module: Module, *, lean: bool = False
) -> Callable[[Sequence[str]], Callable[..., Any]]:
    """What gives a function that runs the module for the values of these names.

    A run takes one thread, so that its numbers are the same however many run at a time. ``lean``
    is that of ``session_options``.
    """

    def open_taps(names: Sequence[str], /) -> Callable[..., Any]:
        from qdqc.runtime.sessions.session import Runner  # here: statistics may come from a cache

        return Runner(module, names, threads=1, cut=True, lean=lean).run

    return open_taps
