"""Running a model one sample ahead, while what it gave before is being looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from compiler.data.fit import Sample
from compiler.ir.types import Array

__all__ = ["run_ahead"]


def run_ahead(
    run: Callable[[Sample], Mapping[str, Array]], samples: Iterable[Sample]
) -> Iterator[Mapping[str, Array]]:
    """The values of each sample, in order.

    The next sample runs in a thread of its own meanwhile, so the values of two samples are
    held at a time. What ``run`` or the samples raise comes up here.
    """
    pending: Future[Mapping[str, Array]] | None = None
    with ThreadPoolExecutor(1, "calibration") as pool:
        for sample in samples:
            following = pool.submit(run, sample)
            if pending is not None:
                yield pending.result()
            pending = following
        if pending is not None:
            yield pending.result()
