"""Which samples of a data set are used."""

from __future__ import annotations

import random

__all__ = ["SEED", "choose"]

SEED = 0


def choose(count: int, wanted: int, seed: int = SEED) -> list[int]:
    """Which of ``count`` samples are used: all, or ``wanted`` drawn with a fixed seed.

    The indices come in rising order: folders are often sorted by class, so the first ones
    would be of one class only.
    """
    if not 0 < wanted < count:
        return list(range(count))
    return sorted(random.Random(seed).sample(range(count), wanted))
