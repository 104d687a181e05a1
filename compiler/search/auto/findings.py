"""What a search has found, kept between runs: the same search goes on from there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from qdqc.search.costs.mode_times import ModeTimes
from qdqc.search.trials.journal import Journal

__all__ = ["Findings", "floats_of", "times_of"]

FindingT = TypeVar("FindingT")


@dataclass(frozen=True)
class Findings:
    """A journal of one search; times are those of this machine, which its key names."""

    journal: Journal

    def of(
        self,
        entry: Any,
        read: Callable[[Any], FindingT],
        make: Callable[[], FindingT],
        *,
        whole: Callable[[], bool] = lambda: True,
    ) -> FindingT:
        """What was found under an entry, else what is found now; kept where it is ``whole``.

        ``read`` makes it of what the journal holds, and raises TypeError or ValueError for
        anything else.
        """
        known = self.journal.get(entry, read)
        if known is not None:
            return known
        made = make()
        if whole():
            self.journal.put(entry, made.entries() if isinstance(made, ModeTimes) else made)
        return made


def floats_of(kept: Any) -> dict[str, float]:
    """Numbers by name. Raises TypeError or ValueError for anything else."""
    if not isinstance(kept, Mapping):
        raise TypeError(kept)
    return {str(name): float(number) for name, number in kept.items()}


def times_of(kept: Any) -> ModeTimes:
    """Raises TypeError, ValueError or KeyError where the times are of another form."""
    try:
        nodes = {str(mode): floats_of(times) for mode, times in kept["nodes"].items()}
        fused = tuple((str(a), str(b)) for a, b in kept["fused"])
        casts = [floats_of(kept[name]) for name in ("quantized", "dequantized")]
        return ModeTimes(nodes, casts[0], casts[1], int(kept["runs"]), fused)
    except (AttributeError, KeyError) as error:
        raise ValueError(kept) from error
