"""What a search for the best model strives for, as it is asked: ``25dB``, ``0.01`` or ``5ms``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from qdqc.diagnostics import QdqcError
from qdqc.search.auto.judge import Quality

__all__ = ["BALANCED", "Balanced", "Drop", "Goal", "Latency", "Near", "Worth", "goal_of"]

Worth: TypeAlias = tuple[int, float]
"""What models are ordered by, the best first: whether the goal is missed, then by how much."""

_GOAL = re.compile(r"(?P<number>\d+(\.\d*)?|\.\d+)\s*(?P<unit>dB|ms|)", re.IGNORECASE)


class Goal(Protocol):
    """Orders models by their quality and their seconds a run, beside those of the float one.

    From ``enough`` dB on more of them do not matter.
    """

    @property
    def enough(self) -> float: ...

    def worth(self, quality: Quality, seconds: float, exact: float) -> Worth:
        """The smaller the better; ``exact`` is the float model's seconds."""
        ...

    def text(self) -> str:
        """As people read it."""
        ...


@dataclass(frozen=True)
class Balanced:
    """The fastest model near to float: what is missing of 30 dB has a price in time.

    A dB short of 30 is worth 4 % of time, one short of 25 another 5 %, since tasks are lost there;
    one between 30 and 40 is worth 0.4 %, one between 40 and 60 half of that. The float model
    itself is always one to choose, so that none is taken that is slower.
    """

    near: float = 30.0
    lost: float = 25.0
    enough: float = 40.0
    all_there_is: float = 60.0

    def worth(self, quality: Quality, seconds: float, exact: float) -> Worth:
        sqnr = quality.sure
        short = 0.04 * max(0.0, self.near - sqnr) + 0.05 * max(0.0, self.lost - sqnr)
        fine = 0.002 * max(0.0, min(sqnr, self.enough) - self.near)
        fine += 0.002 * max(0.0, min(sqnr, self.all_there_is) - self.near)
        return 0, math.log(seconds / exact) + short - fine

    def text(self) -> str:
        return (
            f"the fastest model near to float: {self.near:g} dB, each missing one for 4 % of time"
        )


BALANCED = Balanced()


@dataclass(frozen=True)
class Near:
    """The fastest model whose outputs surely have ``sqnr`` dB."""

    sqnr: float

    @property
    def enough(self) -> float:
        return self.sqnr

    def worth(self, quality: Quality, seconds: float, exact: float) -> Worth:
        met = quality.sure >= self.sqnr
        return (0, seconds / exact) if met else (1, -quality.sure)

    def text(self) -> str:
        return f"the fastest model of {self.sqnr:g} dB"


@dataclass(frozen=True)
class Drop:
    """The fastest model whose metric falls by no more than ``drop`` from ``ideal``."""

    drop: float
    ideal: float
    enough: float = math.inf

    def worth(self, quality: Quality, seconds: float, exact: float) -> Worth:
        met = quality.score >= self.ideal - self.drop
        return (0, seconds / exact) if met else (1, -quality.score)

    def text(self) -> str:
        return f"the fastest model whose metric is at least {self.ideal - self.drop:.6g}"


@dataclass(frozen=True)
class Latency:
    """The nearest model of at most so many ``seconds`` a run."""

    seconds: float
    enough: float = math.inf

    def worth(self, quality: Quality, seconds: float, exact: float) -> Worth:
        met = seconds <= self.seconds
        return (0, -quality.score) if met else (1, seconds)

    def text(self) -> str:
        return f"the nearest model of {self.seconds * 1e3:g} ms"


def goal_of(text: str, ideal: float) -> Goal:
    """The goal that a text asks for; an empty one is balanced.

    ``ideal`` is the float model's metric; infinite where there is none. Raises QdqcError.
    """
    match = _GOAL.fullmatch(text.strip())
    if not text.strip():
        return BALANCED
    if match is None:
        note = "write 25dB, 5ms, or the drop of a metric, 0.01"
        raise QdqcError(f"'{text}' is no goal", notes=[note])
    number, unit = float(match["number"]), match["unit"].lower()
    if unit == "db":
        return Near(number)
    if unit == "ms":
        return Latency(number / 1e3)
    if math.isinf(ideal):
        note = "write dB or ms behind it, or give a `metric`"
        raise QdqcError(f"the goal {text} is the drop of a metric, and none is given", notes=[note])
    return Drop(number, ideal)
