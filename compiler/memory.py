"""The memory that this machine has, and what may be made of it at once."""

from __future__ import annotations

import os

__all__ = ["memory_bytes", "refuse_larger"]

_UNKNOWN = 1 << 36
"""What is assumed where the machine does not say."""


def memory_bytes() -> int | None:
    """Bytes of memory that this machine has; None where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def refuse_larger(nbytes: int, what: str) -> None:
    """Raises ValueError for something of so many bytes that takes over half of the memory."""
    most = (memory_bytes() or _UNKNOWN) // 2
    if nbytes > most:
        raise ValueError(f"{what} takes {nbytes} bytes of memory, and {most} is the limit here")
