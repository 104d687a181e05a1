"""Statistics of a model's values over data, in parallel, and from where an earlier run ended.

Each batch of samples has statistics of its own, made by whatever thread or process, and these
are added up in the order of the samples. So the sums, floating point ones too, are the same to
the bit whoever did the work and wherever it was taken up again.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

from qdqc.calibration.batches import BATCH, Batch, Batches, Digest
from qdqc.calibration.cache import Cache, Entry
from qdqc.calibration.demand import Demand, largest, parts_within, sizes_of
from qdqc.calibration.in_order import in_processes, in_threads
from qdqc.calibration.masking import Masking
from qdqc.calibration.observed import Plan, plan_of
from qdqc.calibration.state import from_bytes, to_bytes
from qdqc.calibration.statistics import Collector, Detail
from qdqc.data.fit import Sample
from qdqc.diagnostics import QdqcError
from qdqc.ir.graph import Graph
from qdqc.ir.types import Array

__all__ = ["SERIAL", "OpenTaps", "Progress", "Resources", "collect"]

_LOOKED_AT = 4
"""Batches of which the largest sample stands for all under a memory limit."""

Progress: TypeAlias = Callable[[int, int], object]
"""Called with the number of samples done, and of how many; 0 where nobody knows."""

Look: TypeAlias = Callable[[Sample], Mapping[str, Array]]
"""Runs the model on a sample and gives the values that were asked for."""

BatchStatistics: TypeAlias = tuple[Collector, str]
"""The statistics of a batch, and the digest of its samples."""


class OpenTaps(Protocol):
    """Opens the model for values of those names; several threads may call what it gives."""

    def __call__(self, names: Sequence[str], /) -> Look: ...


Measure: TypeAlias = Callable[[Callable[[], object]], int]
"""Does something in a process of its own; the peak of its private memory in bytes."""


@dataclass(frozen=True)
class Resources:
    """What collecting may use.

    ``threads`` work in this process, or ``workers`` processes of one thread each where these
    are more than one. Private memory stays below ``memory_limit`` bytes, estimated from what
    ``measure`` finds; 0 for no limit. ``key`` says what statistics in the ``cache`` depend on
    beside the samples: the model and what runs it. ``tell`` gets lines for people.
    """

    threads: int = 1
    workers: int = 1
    memory_limit: int = 0
    measure: Measure = lambda _: 0
    cache: Cache | None = None
    key: str = ""
    tell: Callable[[str], object] = lambda _: None


SERIAL = Resources()
"""One thread, and nothing kept."""


def collect(
    graph: Graph,
    samples: Iterable[Sample],
    open_taps: OpenTaps,
    progress: Progress | None = None,
    *,
    detail: Detail = Detail.HISTOGRAM,
    resources: Resources = SERIAL,
    masking: Masking | None = None,
) -> Collector:
    """Statistics of all float32 values of the top graph over all samples, in graph order.

    Memory does not grow with the samples: each thread holds the values of one sample and the
    statistics of a batch. Under a limit the model may run over the data several times, each time
    as far as a part of the values needs. Samples that come in a row only are read by this thread,
    and neither shared among processes nor looked up in the cache. ``masking`` leaves padding out.
    Raises QdqcError when there are no samples, and for a limit that is too small.
    """
    plan = plan_of(graph)
    if not plan.names:
        raise QdqcError("the model has no float32 values, so there is nothing to calibrate")
    batches = Batches(samples)
    parts = [plan]
    if resources.memory_limit:
        parts, resources = _within_limit(graph, plan, batches, open_taps, detail, resources)
    collector = Collector(detail=detail)
    for number, part in enumerate(parts):
        report = None if progress is None else _part_of(progress, number, len(parts))
        collector.join(
            _Collection(part, batches, open_taps, detail, resources, masking).run(report)
        )
    if not collector.samples:
        raise QdqcError(
            "no calibration data: there are no samples",
            notes=["give `dataset` a folder of images, npz or npy files"],
        )
    sources = [(name, plan.shared.get(name, name)) for name in plan.names]
    collector.statistics = {
        n: collector.statistics[s] for n, s in sources if s in collector.statistics
    }
    return collector


def _part_of(progress: Progress, number: int, parts: int) -> Progress:
    """Progress of all parts from the progress of one."""
    return lambda done, total: progress(number * total + done, parts * total)


def _within_limit(
    graph: Graph,
    plan: Plan,
    batches: Batches,
    open_taps: OpenTaps,
    detail: Detail,
    given: Resources,
) -> tuple[list[Plan], Resources]:
    """The parts of the plan, and how many threads may work on them. Raises QdqcError.

    Threads share the work where the limit leaves room for all of them; else one works alone.
    """
    if not batches.numbered:
        raise QdqcError(
            "`memory_limit` needs samples that can be read more than once",
            notes=["give a folder or file, or leave the limit out"],
        )
    sample = largest(itertools.chain(*map(batches.read, batches.numbers(0)[:_LOOKED_AT])))
    sizes = sizes_of(graph, plan.taps, sample)
    base = given.measure(lambda: None)
    run = given.measure(lambda: open_taps(plan.taps[-1:])(sample))
    own = given.workers > 1
    demand = Demand(base, run, detail, own_processes=own)
    holders = given.workers if own else given.threads
    if not own and demand.total(sizes.values(), holders) > given.memory_limit:
        holders = 1
    parts = parts_within(given.memory_limit, plan, sizes, demand, holders)
    if len(parts) > 1:
        given.tell(f"the memory limit takes {len(parts)} runs over the data")
    return parts, replace(given, threads=holders if not own else given.threads)


class _Collection:
    """Collecting the taps of a plan."""

    def __init__(
        self,
        plan: Plan,
        batches: Batches,
        open_taps: OpenTaps,
        detail: Detail,
        resources: Resources,
        masking: Masking | None,
    ) -> None:
        self._masking = masking
        self._plan = plan
        self._batches = batches
        self._detail = detail
        self._resources = resources
        self._stop = threading.Event()
        self._opening = threading.Lock()
        self._open = functools.cache(lambda: open_taps((*plan.taps, *plan.integers)))

    def run(self, progress: Progress | None) -> Collector:
        collector, digests = self._taken_up()
        if digests and collector.samples == self._batches.total:
            return collector
        with self._kept(collector, digests) as keep:
            for seen, digest in self._results(len(digests)):
                collector.absorb(seen)
                digests.append(digest)
                keep()
                if progress is not None:
                    progress(collector.samples, self._batches.total)
        return collector

    def _results(self, first: int) -> Iterator[BatchStatistics]:
        """What each batch gives from that one on, in order."""
        given, numbers = self._resources, self._batches.numbers(first)
        if given.workers < 2 or len(numbers) < 2 or not self._batches.numbered:
            batches = numbers if self._batches.numbered else self._batches.in_a_row()
            yield from in_threads(self._look, batches, given.threads, self._stop)
            return
        workers = min(given.workers, len(numbers))
        for sent in in_processes(self._look_and_send, numbers, workers):
            collector, notes = from_bytes(sent)
            yield collector, notes["digest"]

    def _look(self, batch: Batch) -> BatchStatistics:
        """The statistics of a batch alone; of its beginning when ``_stop`` is set."""
        collector, digest = Collector(self._plan.channels, self._detail), Digest()
        with self._opening:
            look = self._open()
        for sample in self._batches.read(batch):
            if self._stop.is_set():
                break
            if self._resources.cache is not None:
                digest.add(sample)
            values = look(sample)
            for name in self._plan.taps:
                if name in values:
                    collector.update(name, self._kept_of(name, values[name], sample))
            for name in self._plan.integers:
                collector.update_extremes(name, values[name])
            collector.end_sample()
        return collector, digest.text()

    def _kept_of(self, name: str, array: Array, sample: Sample) -> Array:
        return array if self._masking is None else self._masking.kept(name, array, sample)

    def _look_and_send(self, batch: Batch) -> bytes:
        collector, digest = self._look(batch)
        return to_bytes(collector, {"digest": digest})

    @contextlib.contextmanager
    def _kept(self, collector: Collector, digests: list[str]) -> Generator[Callable[[], None]]:
        """Gives what writes the statistics to the cache; in the end they are written anyway."""
        entry = self._entry(self._detail)
        if entry is None:
            yield lambda: None
            return
        before = len(digests)
        try:
            yield lambda: entry.save(collector, digests)
        finally:
            if len(digests) > before:
                entry.save(collector, digests, at_once=True)

    def _taken_up(self) -> tuple[Collector, list[str]]:
        """What the cache holds of these samples; nothing where they have changed since.

        Statistics of all samples that hold more than is asked for do as well.
        """
        total = self._batches.total
        entries = [self._entry(d) for d in Detail if d >= self._detail]
        loaded = [e.load() for e in entries if e is not None]
        for collector, digests in sorted((h for h in loaded if h), key=lambda h: -h[0].samples):
            richer = collector.detail is not self._detail
            if (richer and collector.samples != total) or not self._fits(collector):
                continue
            if not self._are_of(digests, collector.samples):
                continue
            self._resources.tell(f"{collector.samples} of {total} samples were found in the cache")
            return collector, digests
        return Collector(self._plan.channels, self._detail), []

    def _fits(self, collector: Collector) -> bool:
        """Whether statistics are of the values that are asked for."""
        return (
            collector.statistics.keys() <= set(self._plan.taps)
            and collector.extremes.keys() <= set(self._plan.integers)
            and collector.channels.keys() <= set(self._plan.channels)
        )

    def _are_of(self, digests: list[str], samples: int) -> bool:
        """Whether the first samples have these digests, in batches that can be gone on from."""
        total, whole = self._batches.total, len(digests) * BATCH
        if samples != min(whole, total) or not samples:
            return False
        numbers = range(len(digests))
        current = in_threads(self._digest, numbers, self._resources.threads, threading.Event())
        return all(a == b for a, b in zip(current, digests, strict=True))

    def _digest(self, batch: Batch) -> str:
        digest = Digest()
        for sample in self._batches.read(batch):
            digest.add(sample)
        return digest.text()

    def _entry(self, detail: Detail) -> Entry | None:
        if self._resources.cache is None or not self._batches.numbered:
            return None
        taps = (*self._plan.taps, *self._plan.integers)
        mask = "" if self._masking is None else self._masking.mask
        key = [self._resources.key, detail.name, self._beginning, str(BATCH), mask, *taps]
        return self._resources.cache.entry("\n".join(key))

    @functools.cached_property
    def _beginning(self) -> str:
        """What distinguishes data sets without reading them."""
        return self._digest(0) if self._batches.total else ""
