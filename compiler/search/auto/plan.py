"""What a search for the best model ends with: how it is deployed, and why so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from qdqc.calibration.table import Table
from qdqc.ir.graph import Module
from qdqc.quant.deployment import Deployment
from qdqc.quant.qtable import Qtable
from qdqc.runtime.sessions.session import Feeds
from qdqc.search.auto.candidate import Candidate

__all__ = ["AutoPlan"]


@dataclass(frozen=True)
class AutoPlan:
    """How the chosen model is deployed: with ``table`` and ``modes`` by names and patterns.

    ``reasons`` say by node why it left INT8. ``tried`` are all candidates, ``exact`` is the float
    model with its seconds; ``goal`` is as people read it. ``held_back`` are the samples that all
    of them were judged on, ``alone`` the SQNR in dB that rounded ``values`` and ``weights`` leave
    each alone, as the sum of single roundings says, where it was looked at.
    """

    module: Module
    deployment: Deployment
    table: Table | None
    modes: Mapping[str, str] | None
    chosen: Candidate
    exact: Candidate
    tried: tuple[Candidate, ...]
    goal: str
    reasons: Mapping[str, str]
    held_back: Sequence[Feeds] = field(repr=False)
    alone: Mapping[str, float] = field(default_factory=dict[str, float])
    stopped: bool = False

    @property
    def qtable(self) -> Qtable | None:
        """The modes as deployment takes them; None for a float model."""
        return None if self.modes is None else Qtable.of(self.modes)

    def entries(self) -> dict[str, Any]:
        """The key ``auto`` of ``--report``."""
        return {
            "goal": self.goal,
            "chosen": self.chosen.entries(),
            "float_seconds": self.exact.seconds,
            "candidates": [c.entries() for c in self.tried],
            "modes": dict(self.chosen.modes) if not self.chosen.is_float else "F32",
            "reasons": dict(self.reasons),
            "alone": dict(self.alone),
            "stopped": self.stopped,
        }
