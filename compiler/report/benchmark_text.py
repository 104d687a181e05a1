"""What people see of a deployed model's speed beside the float one's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qdqc.diagnostics import joined
from qdqc.runtime.timing.latency import OpTime, Seconds, Spread, ratio, spread

__all__ = ["benchmark_entries", "render_benchmark"]

FLOAT, DEPLOYED = "float", "deployed"


def render_benchmark(
    times: Mapping[str, Seconds], ops: Mapping[str, Sequence[OpTime]], sizes: Mapping[str, int]
) -> str:
    """Medians with quartiles, the speed-up, bytes, and the time of each op of both models.

    All are by the names ``float`` and ``deployed``.
    """
    speed = ratio(times[FLOAT], times[DEPLOYED])
    rounds = len(times[FLOAT])
    lines = [f"one thread, {rounds} interleaved rounds, median [quartiles]"]
    for name, seconds in times.items():
        quartiles = spread(seconds).text(scale=1e3, digits=3)
        lines.append(f"  {name:<9} {quartiles} ms, {sizes[name]:,} bytes")
    part = sizes[DEPLOYED] / sizes[FLOAT] if sizes[FLOAT] else 1.0
    lines.append(f"  {speed.text()} times as fast, {part:.3f} of the bytes")
    for name, rows in ops.items():
        by_op = ", ".join(f"{r.op} x{r.nodes} {r.seconds * 1e3:.3f}" for r in rows)
        lines.append(f"  ms by op, {name}: {by_op}")
    return joined(lines)


def benchmark_entries(
    times: Mapping[str, Seconds], ops: Mapping[str, Sequence[OpTime]]
) -> dict[str, Any]:
    """The figures as ``--report`` has them; times in milliseconds."""
    entries: dict[str, Any] = {
        name: _spread(spread(seconds * 1e3)) for name, seconds in times.items()
    }
    entries["speedup"] = _spread(ratio(times[FLOAT], times[DEPLOYED]))
    entries["rounds"] = len(times[FLOAT])
    entries["ops"] = {
        name: [{"op": r.op, "nodes": r.nodes, "ms": r.seconds * 1e3} for r in rows]
        for name, rows in ops.items()
    }
    return entries


def _spread(quartiles: Spread) -> dict[str, float]:
    return {"median": quartiles.median, "low": quartiles.low, "high": quartiles.high}
