"""Mixed models, verified: each set of float layers is deployed and run, once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from qdqc.calibration.table import Table, print_table
from qdqc.search.trials.journal import Journal
from qdqc.search.trials.trials import Trials

__all__ = ["Mix", "Mixes"]


@dataclass(frozen=True)
class Mix:
    """A deployed model with some layers left float, and its verified score."""

    floats: frozenset[str]
    score: float


class Mixes:
    """The scores of deployed models by their float layers, and the best of them so far.

    The best one has the fewest float layers of those that reach the goal, and of as many the
    better score; where none reaches it, the best score, with the fewest layers at a tie.
    ``progress`` hears of each model that is verified.
    """

    def __init__(
        self,
        trials: Trials,
        table: Table,
        journal: Journal,
        goal: float,
    ) -> None:
        self.trials = trials
        self.table = table
        self.goal = goal
        self.verified: dict[frozenset[str], Mix] = {}
        self._journal = journal
        self.progress: Callable[[Mix], object] = lambda mix: None
        text = print_table(table)
        self._table_digest = hashlib.sha256(text.encode()).hexdigest()

    def score(self, floats: Iterable[str] = ()) -> float:
        """The score of the deployed model with these layers left float. Raises QdqcError."""
        chosen = frozenset(floats)
        if chosen not in self.verified:
            entry = ["mix", self._table_digest, sorted(chosen)]
            score = self._journal.get(entry, float)
            if score is None:
                score = self.trials.score_of(self.table, chosen)
                self._journal.put(entry, score)
            self.verified[chosen] = Mix(chosen, score)
            self.progress(self.verified[chosen])
        return self.verified[chosen].score

    def reaches(self, floats: Iterable[str]) -> bool:
        """Whether the deployed model with these layers left float reaches the goal."""
        return self.score(floats) >= self.goal

    @property
    def best(self) -> Mix:
        """The best model so far; the whole INT8 one is always among them."""
        self.score()
        reached = [m for m in self.verified.values() if m.score >= self.goal]
        if reached:
            return min(reached, key=lambda m: (len(m.floats), -m.score))
        return min(self.verified.values(), key=lambda m: (-m.score, len(m.floats)))
