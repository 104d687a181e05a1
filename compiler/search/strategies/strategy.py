"""How float layers are chosen: the registry of strategies, and the state of one search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, dataclass_transform

from qdqc.calibration.table import Table
from qdqc.diagnostics import QdqcError, suggestion
from qdqc.registry import Registry
from qdqc.search.strategies.mixes import Mix, Mixes
from qdqc.search.strategies.pareto_point import Point
from qdqc.search.strategies.sensitivity import Sensitivity
from qdqc.search.trials.journal import Journal
from qdqc.search.trials.trials import Trials

__all__ = ["STRATEGIES", "Search", "Stage", "Strategy", "strategy_named"]

STRATEGIES: Registry[type[Strategy]] = Registry("strategy", home="qdqc.search.strategies")

Stage = Callable[[str, str], Callable[[int, int, str], object]]
"""Opens a stage of the work by its name and unit; what it gives hears how much is done."""


def _no_stage(_stage: str, _unit: str, /) -> Callable[[int, int, str], object]:
    return lambda done, total, note: None


@dataclass
class Search:
    """A search of float layers; its state is what can be written at any time.

    ``base`` is the given table, and ``tables_of`` gives it with those of further methods, by
    name. Mixed models are verified in ``mixes``, whose best one is the result unless a strategy
    has ``chosen`` another one. ``own_losses`` is what layers lose by a measure of its own.
    ``screened`` is that of ``Sensitivity.run``. ``note`` hears of what people want to know,
    ``detail`` of every step.
    """

    trials: Trials
    base: Table
    goal: float
    journal: Journal
    tables_of: Callable[[Sequence[str]], Mapping[str, Table]]
    screened: int = 0
    stage: Stage = _no_stage
    note: Callable[[str], object] = lambda _: None
    detail: Callable[[str], object] = lambda _: None
    int8: float | None = None
    own_losses: dict[str, float] = field(default_factory=dict[str, float])
    cosines: dict[str, float] = field(default_factory=dict[str, float])
    sensitivity: Sensitivity | None = None
    points: list[Point] = field(default_factory=list[Point])
    chosen: Mix | None = None

    def __post_init__(self) -> None:
        self.mixes = Mixes(self.trials, self.base, self.journal, self.goal)

    def run(self, strategy: Strategy) -> None:
        """Score the INT8 model, then search. Raises QdqcError."""
        self.int8 = self.mixes.score()
        self.detail(f"all_int8_cos={self.int8:.6f}")
        strategy.run(self)

    def run_sensitivity(self, methods: Sequence[str]) -> Sensitivity:
        """Try each layer alone in INT8, with the ranges of the given table and of the methods."""
        tables = self.tables_of(methods)
        self.detail(f"quantize_method_list ={list(tables)}")
        self.detail(f"all search layer number: {len(self.trials.layers.integer)}")
        self.sensitivity = Sensitivity(
            self.trials, tables, self.journal, self.stage("search", "layer")
        )
        self.sensitivity.run(screened=self.screened)
        return self.sensitivity

    @property
    def losses(self) -> Mapping[str, float]:
        """What layers lose, by name: each alone in INT8, or by the strategy's own measure."""
        if self.sensitivity is None:
            return self.own_losses
        return {j.layer.name: j.loss for j in self.sensitivity.ranking()}

    @property
    def is_known(self) -> bool:
        """Whether there is something to write."""
        return self.int8 is not None

    @property
    def result(self) -> Mix:
        """The mixed model as it stands."""
        return self.chosen if self.chosen is not None else self.mixes.best

    @property
    def table(self) -> Table:
        """The table that goes with the result."""
        return self.mixes.table

    @property
    def floats(self) -> list[str]:
        """The float layers of the result: the most sensitive first, or in graph order."""
        order = [j.layer.name for j in self.sensitivity.ranking()] if self.sensitivity else []
        order += [layer.name for layer in self.trials.layers.integer]
        return [name for name in dict.fromkeys(order) if name in self.result.floats]

    @property
    def moved(self) -> frozenset[str]:
        """Layers that leave the integers as well when those of the result do."""
        return self.trials.layers.moved_with(self.result.floats) - self.result.floats


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Strategy:
    """Base class of strategies; defining a subclass makes it a frozen dataclass and registers it.

    Annotated fields are its options. The first line of the docstring says how it chooses.
    """

    name: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclass(frozen=True, kw_only=True)(cls)
        if cls.name:
            STRATEGIES.add(cls.name, cls)

    def run(self, search: Search) -> None:
        """Verify mixed models in ``search.mixes`` until the best one is good enough."""
        raise NotImplementedError(f"{type(self).__name__}.run")


def strategy_named(name: str, **options: Any) -> Strategy:
    """A strategy with its options. Raises QdqcError for an unknown name or option."""
    cls = STRATEGIES[name]
    fields: list[str] = list(getattr(cls, "__dataclass_fields__", ()))
    unknown = [option for option in options if option not in fields]
    if unknown:
        takes = f"it takes {', '.join(fields)}" if fields else "it takes none"
        hint = suggestion(unknown[0], fields)
        raise QdqcError(f"strategy '{name}' has no option '{unknown[0]}'{hint}", notes=[takes])
    return cls(**options)
