"""A model of the front of accuracy against latency."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Point"]


@dataclass(frozen=True)
class Point:
    """A mixed model: what it was predicted to take, and what was measured, in seconds."""

    floats: frozenset[str]
    predicted: float
    score: float
    seconds: float
