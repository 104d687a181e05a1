"""Signals that ask a command to end: it cleans up and leaves with the exit code of the signal."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Generator
from types import FrameType

from qdqc.diagnostics import EXIT_INTERRUPTED, Stopped

__all__ = ["stopped_by_signals"]

_WORDS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "hung up"}
_FIRST = 128
"""A shell's exit code of a process that a signal ended, less the signal's number."""


@contextlib.contextmanager
def stopped_by_signals() -> Generator[None]:
    """Within the block SIGINT, SIGTERM and SIGHUP raise Stopped in the main thread.

    Only the first of a kind does but for SIGINT, so that cleaning up comes to its end. A signal
    that the caller ignores, as under nohup, stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {}
    for name in _WORDS:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
            before[number] = signal.signal(number, _stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, _: FrameType | None) -> None:
    if number != signal.SIGINT:
        signal.signal(number, signal.SIG_IGN)
    code = EXIT_INTERRUPTED if number == signal.SIGINT else _FIRST + number
    raise Stopped(code, _WORDS[signal.Signals(number).name])
