"""What the processor can do that decides how a model is best quantized for it."""

from __future__ import annotations

from pathlib import Path

__all__ = ["has_vnni"]

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
