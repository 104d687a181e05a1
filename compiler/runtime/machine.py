"""What the machine has and can do: its processor and cores, and what a process takes."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["cores", "has_vnni", "peak_of", "private_memory", "processor"]

_INTERVAL = 0.005
"""Seconds between two looks at the memory of a process."""

_VNNI = frozenset({"avx512_vnni", "avx_vnni"})


def has_vnni(cpuinfo: str | Path = "/proc/cpuinfo") -> bool | None:
    """Whether an x64 processor sums products of u8 and s8 in int32 (VNNI).

    Without it they are summed by twos in int16, which saturates at full range. None where the
    system does not say, or the processor is no x64.
    """
    try:
        text = Path(cpuinfo).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    flags = next((line for line in text.splitlines() if line.startswith("flags")), None)
    return None if flags is None else not _VNNI.isdisjoint(flags.split())


def processor(cpuinfo: str | Path = "/proc/cpuinfo") -> str:
    """What tells this processor from others that take other times: its model and its flags."""
    try:
        text = Path(cpuinfo).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("model name", "flags", "Features", "CPU part")
    lines = [line for line in text.splitlines() if line.startswith(wanted)]
    return "\n".join(dict.fromkeys(lines))


def cores() -> int:
    """The cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def private_memory(*, children: bool = True) -> int:
    """Bytes of private memory of this process and its children; 0 where /proc is missing."""
    own = os.getpid()
    return sum(_private_bytes(pid) for pid in (_family(own) if children else [own]))


def peak_of(action: Callable[[], object]) -> int:
    """The peak of private memory, in bytes, of a copy of this process that does something.

    0 where the system makes no such copies or tells no memory.
    """
    import multiprocessing

    if "fork" not in multiprocessing.get_all_start_methods():
        return 0
    context = multiprocessing.get_context("fork")
    child = context.Process(target=_quietly, args=(action,), daemon=True)
    child.start()
    peak = 0
    try:
        while child.is_alive():
            peak = max(peak, _private_bytes(child.pid or 0))
            child.join(_INTERVAL)
    finally:
        child.kill()
    return peak


def _quietly(action: Callable[[], object]) -> None:
    """What fails here fails again, and is told, when it is done in earnest."""
    with contextlib.suppress(Exception):
        action()
    time.sleep(2 * _INTERVAL)


def _family(pid: int) -> list[int]:
    """The process and all processes below it."""
    family = [pid]
    for parent in family:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                family += [int(child) for child in children.read_text().split()]
            except OSError:
                continue  # the thread or process ended in between
    return family


def _private_bytes(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
