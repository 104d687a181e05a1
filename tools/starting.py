"""Ctrl-C before a command has begun: while its files are imported nothing else answers it."""

from __future__ import annotations

import os
import sys
from types import TracebackType

__all__ = ["stop_quietly"]

_INTERRUPTED = 130


def stop_quietly() -> None:
    """Where this process is one of our commands, a KeyboardInterrupt that nobody catches ends it.

    It says so in one word. ``python -m`` names the command only when its package is imported.
    """
    name = os.path.splitext(os.path.basename(sys.argv[0] if sys.argv else ""))[0]
    if name == "-m" or os.path.exists(os.path.join(os.path.dirname(__file__), f"{name}.py")):
        sys.excepthook = _hook


def _hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    sys.stderr.write("interrupted\n")
    sys.stderr.flush()
    os._exit(_INTERRUPTED)  # Python itself would end by the signal, as if nobody had answered it
