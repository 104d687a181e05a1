"""Recipes: named pipelines that tune a module for INT8, and what each of their steps gained."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, TypeAlias

from qdqc.calibration.masking import masking_by
from qdqc.calibration.table import Table
from qdqc.data.fit import Sample
from qdqc.ir.graph import Module
from qdqc.ir.spelling import print_value
from qdqc.pipeline.manager import run
from qdqc.quant.deployment import Deployment
from qdqc.registry import Registry
from qdqc.runtime.comparison.choices import judged_values
from qdqc.runtime.comparison.fidelity import Fidelity, fidelity
from qdqc.runtime.sessions.session import Runner
from qdqc.search.trials.mixed_models import MixedModels
from qdqc.text.digest import module_digest

__all__ = [
    "EVERY",
    "MOST",
    "RECIPES",
    "Recipe",
    "Share",
    "Stage",
    "Step",
    "Tuned",
    "is_judge",
    "recipe_named",
    "tune",
]

Calibrate: TypeAlias = Callable[[Module], Table]


@dataclass(frozen=True)
class Stage:
    """A pass of a recipe, with options of its own.

    ``exact`` passes keep the float function and change activations, which then have other
    ranges. Those that measure get the target and the mask.
    """

    name: str
    options: str = ""
    exact: bool = False
    measures: bool = True

    def pipeline(self, target: str, mask: str) -> str:
        """The pass as a pipeline string."""
        given = [self.options]
        if self.measures:
            given += [f"target={print_value(target)}", f"mask={print_value(mask)}" if mask else ""]
        options = " ".join(filter(None, given))
        return f"{self.name}{{{options}}}" if options else self.name


_EQUALIZE = Stage("equalize-channels", exact=True, measures=False)
_EQUALIZE_SEEN = Stage("equalize-activations", exact=True)
_SMOOTH = Stage("smooth-activations", exact=True)

RECIPES: Registry[Recipe] = Registry("recipe")


class Recipe:
    """What a recipe runs; defining a subclass with a ``name`` registers it.

    A step of ``stages`` that finds nothing to change costs next to nothing. One that ``selects``
    keeps a step only where it helps samples that the step has not seen.
    """

    name: ClassVar[str] = ""
    stages: ClassVar[tuple[Stage, ...]] = ()
    selects: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in vars(cls):
            RECIPES.add(cls.name, cls())


class Fast(Recipe):
    """Biases that make up for what rounding does to the mean."""

    name = "fast"
    stages = (Stage("round-weights", 'method="nearest"'),)


class Balanced(Recipe):
    """Channels brought to one reach, outliers moved into weights, weights rounded together."""

    name = "balanced"
    stages = (_EQUALIZE_SEEN, _SMOOTH, Stage("round-weights"))


class Best(Recipe):
    """As ``balanced``, with weights brought to one scale too, and each step put to a test."""

    name = "best"
    stages = (_EQUALIZE_SEEN, _EQUALIZE, _SMOOTH, Stage("round-weights"))
    selects = True


_SLACK = 0.1
"""Of a recipe that does not select, a step that loses more dB on the judges is left out."""

EVERY, MOST = 5, 20
"""One sample in so many is held out to judge by, and not more than so many."""


@dataclass(frozen=True)
class Step:
    """A step as it ran: how near the outputs were to float before and after, and if it stays.

    One that found nothing to change was not ``kept``, and has no ``after``.
    """

    pipeline: str
    before: Fidelity
    after: Fidelity | None
    kept: bool
    seconds: float

    @property
    def gain(self) -> float:
        """Of the SQNR, in dB."""
        return 0.0 if self.after is None else self.after.sqnr - self.before.sqnr

    def entries(self) -> dict[str, Any]:
        """As a report has it."""
        return asdict(self)


@dataclass(frozen=True)
class Tuned:
    """The tuned ``module``, the calibration ``table`` that belongs to it, and the steps."""

    module: Module
    table: Table
    steps: tuple[Step, ...]

    def entries(self) -> list[dict[str, Any]]:
        """The steps as a report has them."""
        return [step.entries() for step in self.steps]


def recipe_named(name: str) -> Recipe:
    """The recipe of that name. Raises QdqcError that lists the known ones."""
    return RECIPES[name]


class Share:
    """Every fifth of the samples, twenty at most, which are ``held_out``; or the others."""

    def __init__(self, samples: Iterable[Sample], *, held_out: bool) -> None:
        self._samples = samples
        self._held_out = held_out

    def __iter__(self) -> Iterator[Sample]:
        for index, sample in enumerate(self._samples):
            if is_judge(index) is self._held_out:
                yield sample

    def __len__(self) -> int:
        """Their number; 0 where only reading them would show it."""
        samples: Any = self._samples
        total = len(samples) if hasattr(samples, "__len__") else 0
        return sum(is_judge(index) is self._held_out for index in range(total))


def is_judge(index: int) -> bool:
    """Whether the sample of that number is held out."""
    return index % EVERY == EVERY - 1 and index < EVERY * MOST


def tune(
    module: Module,
    samples: Iterable[Sample],
    recipe: str,
    calibrate: Calibrate,
    *,
    target: str = "ort-cpu",
    mask: str = "",
) -> Tuned:
    """Run the steps of a recipe on samples, which must come again when they are asked for again.

    ``calibrate`` gives the ranges of a module's values. The samples that judge are every fifth;
    steps of a recipe that selects do not see these, and stay only where they raise the SQNR
    there. Of the others a step is left out where it clearly loses.
    ``mask`` names an input that is 0 where there is padding. Raises QdqcError.
    """
    chosen = recipe_named(recipe)
    masking = masking_by(module.graph, mask) if mask else None
    held_out = Share(samples, held_out=True)
    judges = held_out if len(held_out) else samples
    training = Share(samples, held_out=False) if chosen.selects else samples
    names = judged_values(module)
    exact = Runner(module, names, threads=1)

    def judged(changed: Module, table: Table) -> Fidelity:
        lowered = MixedModels(changed, Deployment(target=target)).lowered(table)
        pairs = ((sample, exact.run(sample)) for sample in judges)
        runner = Runner(lowered, names, threads=1)
        return fidelity(runner, pairs, names, masking.kept if masking else None)

    table = calibrate(module)
    now = judged(module, table)
    done: list[Step] = []
    for stage in chosen.stages:
        start, pipeline = time.perf_counter(), stage.pipeline(target, mask)
        changed = run(module, pipeline, samples=training)
        digest = module_digest(changed)
        if digest == module_digest(module):
            done.append(Step(pipeline, now, None, False, time.perf_counter() - start))
            continue
        candidate = calibrate(changed) if stage.exact else table
        candidate = replace(candidate, header={**candidate.header, "digest": digest})
        seconds = time.perf_counter() - start
        then = judged(changed, candidate)
        kept = then.sqnr > (now.sqnr if chosen.selects else now.sqnr - _SLACK)
        done.append(Step(pipeline, now, then, kept, seconds))
        if kept:
            module, table, now = changed, candidate, then
    return Tuned(module, table, tuple(done))
