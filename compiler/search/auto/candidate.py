"""A model that a search has tried: its modes, what it keeps and what it takes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from qdqc.calibration.table import Table, print_table
from qdqc.search.auto.judge import Quality
from qdqc.search.trials.mixed_models import MixedModels
from qdqc.text.digest import module_digest

__all__ = ["Candidate", "Weights"]


@dataclass(frozen=True, eq=False)
class Weights:
    """A module and its ranges by method: the float one, or as a ``recipe`` tuned it."""

    models: MixedModels
    tables: Mapping[str, Table]
    recipe: str = ""

    @cached_property
    def digests(self) -> Mapping[str, str]:
        """What tells module and ranges apart from others, by method."""
        module = module_digest(self.models.module)
        texts = {m: f"{module} {print_table(t)}" for m, t in self.tables.items()}
        return {m: hashlib.sha256(text.encode()).hexdigest() for m, text in texts.items()}

    def translated(self, modes: Mapping[str, str], source: Weights) -> dict[str, str]:
        """Modes by the names of another's nodes, by the own ones.

        Values whose numbers a recipe changed have other names there, at the same places.
        """
        nodes = {n.name: n for n in source.models.module.graph.nodes()}
        own = list(self.models.module.graph.nodes())
        names, places = {n.name for n in own}, {n.loc.names: n.name for n in own}
        return {
            name if name in names else places[nodes[name].loc.names]: mode
            for name, mode in modes.items()
            if name in names or nodes[name].loc.names in places
        }


@dataclass(frozen=True)
class Candidate:
    """``modes`` are those of nodes that are not INT8, by name; ``method`` gave the ranges.

    ``seconds`` are those of a run. Of one that ``is_float`` nothing at all is quantized. ``label``
    says where it comes from.
    """

    label: str
    weights: Weights = field(repr=False)
    method: str
    modes: Mapping[str, str] = field(repr=False)
    quality: Quality
    seconds: float
    is_float: bool = False

    @property
    def table(self) -> Table:
        return self.weights.tables[self.method]

    def counts(self) -> dict[str, int]:
        """How many products and other computing nodes are in each mode beside INT8."""
        counts: dict[str, int] = {}
        for mode in self.modes.values():
            counts[mode] = counts.get(mode, 0) + 1
        return counts

    def entries(self) -> dict[str, Any]:
        """As a report has it."""
        return {
            "label": self.label,
            "method": self.method,
            "recipe": self.weights.recipe,
            "modes": self.counts(),
            "sqnr": self.quality.sqnr,
            "seconds": self.seconds,
        }
