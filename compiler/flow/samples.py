"""Samples that flows run on: those of the user, or random ones to check with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from qdqc.data.bad_samples import BadSamples
from qdqc.data.choice import SEED
from qdqc.data.dataset import Dataset, open_dataset, open_list
from qdqc.data.fit import Sample, input_specs
from qdqc.data.plausible import implausible
from qdqc.data.preprocess import Preprocess
from qdqc.diagnostics import Diagnostic, Severity
from qdqc.flow.listener import Listener
from qdqc.flow.random_checks import samples_that_run
from qdqc.ir.graph import Graph, Module
from qdqc.search.auto.plan import AutoPlan

__all__ = [
    "CheckSamples",
    "DataSource",
    "Given",
    "check_samples",
    "held_back",
    "images_text",
    "tell_images",
    "warn_unstated",
]

Given: TypeAlias = str | Path | Iterable[Mapping[str, Any]]
"""A file or a folder as ``run_calibration`` takes it, or dicts of arrays by input."""

_LOOKED_AT = 4
"""Samples whose numbers are held against the preprocessing before the work begins."""


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """Where samples come from: ``dataset``, or a ``data_list`` with one sample a line.

    ``input_num`` of them are used, 0 for all, drawn by ``seed``; up to ``max_bad`` unusable ones
    are left out. ``batch_size`` rows make a sample where the batch is a symbol.
    """

    dataset: Given | None = None
    data_list: str | Path | None = None
    input_num: int = 0
    seed: int = SEED
    max_bad: int = 0
    batch_size: int = 1

    def open(
        self, graph: Graph, listener: Listener, *, every: bool = False, look: bool = True
    ) -> Dataset:
        """The samples, or all there are in their order. Raises QdqcError.

        ``look`` warns of numbers that the preprocessing can't make.
        """
        by_list = self.dataset is None
        opened: Callable[..., Dataset] = open_list if by_list else open_dataset
        dataset = opened(
            self.data_list if by_list else self.dataset,
            graph,
            input_num=0 if every else self.input_num,
            batch=self.batch_size,
            seed=self.seed,
            bad=BadSamples(self.max_bad, listener.warn),
        )
        tell_images(graph, dataset, listener)
        if look:
            first = dataset.part(0, _LOOKED_AT)
            for warning in implausible(input_specs(graph), () if first is None else first):
                listener.warn(warning)
        return dataset


def images_text(graph: Graph) -> list[str]:
    """One line for each input that takes images: what becomes of them."""
    stated = [(s, s.preprocess) for s in input_specs(graph) if s.preprocess is not None]
    return [f"'{s.name}': {p.text(s.type)}" for s, p in stated if p.is_image]


def tell_images(graph: Graph, dataset: Dataset, listener: Listener) -> None:
    """Say how images become inputs, where samples are images, and warn where nobody stated it."""
    if dataset.reads_images:
        for line in images_text(graph):
            listener.note(f"images for {line}")
        warn_unstated(graph, listener)


def warn_unstated(graph: Graph, listener: Listener) -> None:
    """A warning for each image input of which nobody stated which numbers pixels become."""
    for spec in input_specs(graph):
        preprocess = spec.preprocess
        if preprocess is not None and preprocess.is_image and not preprocess.is_stated:
            listener.warn(_unstated(spec.name, preprocess))


def _unstated(name: str, preprocess: Preprocess) -> Diagnostic:
    return Diagnostic(
        Severity.WARNING,
        f"NOBODY STATED THE PREPROCESSING of input '{name}': images go in as raw "
        f"{preprocess.pixel_format} pixels of 0..255, which is wrong for most networks",
        notes=(
            "state `mean`, `scale` and `pixel_format` at model_transform as in the training",
            "where it takes raw pixels, `mean` 0 and `scale` 1 say so",
        ),
    )


@dataclass(frozen=True)
class CheckSamples:
    """Samples that a model is checked on.

    ``source`` is a file, a folder, ``calibration`` (samples of the calibration) or ``random``, on
    which a check is weak: noise reaches other values than data do.
    """

    samples: Dataset | Sequence[Sample]
    source: str

    @property
    def are_random(self) -> bool:
        return self.source == "random"

    @property
    def first(self) -> Sample:
        return next(iter(self.samples))


def held_back(plan: AutoPlan) -> CheckSamples:
    """The samples that a search of the best model judged by."""
    return CheckSamples([dict(sample) for sample in plan.held_back], "held-back")


def check_samples(
    reference: Module,
    given: str | Path | None,
    count: int,
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> CheckSamples:
    """The samples of a file or folder, or random ones for the inputs of a float module.

    ``ranges`` bound random inputs by name. Sizes that the inputs leave open are such that the
    model runs. Raises QdqcError.
    """
    if given:
        return CheckSamples(open_dataset(given, reference.graph), str(given))
    return CheckSamples(samples_that_run(reference, count, ranges), "random")
