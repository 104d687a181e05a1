"""Statistics over data are the same however the work is shared, stopped and taken up again."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qdqc.calibration.batches import BATCH, Batches, Digest
from qdqc.calibration.cache import SUFFIX, Cache
from qdqc.calibration.collection import SERIAL, Resources, collect
from qdqc.calibration.in_order import can_fork
from qdqc.calibration.state import to_bytes
from qdqc.calibration.statistics import Collector, Detail
from qdqc.data.dataset import Dataset, open_dataset
from qdqc.diagnostics import QdqcError
from qdqc.ir.data import Data
from qdqc.ir.graph import Module
from qdqc.ir.types import Elem, TensorType
from qdqc.kept_folder import KeptFolder
from qdqc.ops import Conv, Transpose

COUNT = 23
forks = pytest.mark.skipif(not can_fork(), reason="this system has no fork")


def module() -> Module:
    """x -> conv with a bias -> y -> turned."""
    out = Module()
    x = out.graph.add_input("x", TensorType(Elem.F32, (1, 3, 4, 4)))
    w = out.add_constant("w", Data.of(np.ones((3, 3, 1, 1), np.float32)))
    b = out.add_constant("b", Data.of(np.zeros(3, np.float32)))
    y = out.graph.insert(Conv(), [x, w, b], None, ["y"]).result
    turned = out.graph.insert(Transpose(perm=(0, 2, 3, 1)), [y], None, ["turned"])
    out.graph.set_outputs([turned.result])
    return out


def arrays(count: int = COUNT, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    scales = rng.lognormal(0, 3, count)
    return [(s * rng.standard_normal((1, 3, 4, 4))).astype(np.float32) for s in scales]


def dataset(held: Iterable[np.ndarray]) -> Dataset:
    return Dataset([lambda a=a: {"x": a} for a in held], "arrays")


class Model:
    """y = 3 x - 1, and a list of what it was run on; ``before`` is called before each run."""

    def __init__(self, before: Callable[[int], object] = lambda _: None) -> None:
        self.seen: list[bytes] = []
        self._before = before

    def open_taps(self, names: Sequence[str], /) -> Callable[[dict[str, Any]], dict[str, Any]]:
        assert list(names) == ["x", "y"]

        def look(sample: dict[str, Any]) -> dict[str, Any]:
            self._before(len(self.seen))
            self.seen.append(sample["x"].tobytes())
            return {"x": sample["x"], "y": 3 * sample["x"] - 1}

        return look


def collected(samples: Any, resources: Resources = SERIAL, **given: Any) -> Collector:
    return collect(module().graph, samples, Model().open_taps, resources=resources, **given)


def text(collector: Collector) -> bytes:
    return to_bytes(collector, {})


def test_every_value_of_every_sample_counts() -> None:
    held = arrays()
    found = collected(dataset(held))
    x = np.concatenate(held).astype(np.float64)
    assert found.samples == COUNT
    assert list(found.statistics) == ["x", "y", "turned"]
    assert found.statistics["turned"] is found.statistics["y"]
    stats = found.statistics["x"]
    assert (stats.min, stats.max, stats.count) == (x.min(), x.max(), x.size)
    expected, _ = np.histogram(x, stats.edges())
    np.testing.assert_array_equal(stats.counts, expected)
    np.testing.assert_allclose(found.channels["x"].mean, x.mean(axis=(0, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize("detail", list(Detail))
def test_the_statistics_are_the_same_to_the_bit_whoever_does_the_work(detail: Detail) -> None:
    whole = text(collected(dataset(arrays()), detail=detail))
    for threads in (2, 5):
        resources = Resources(threads=threads)
        assert text(collected(dataset(arrays()), resources, detail=detail)) == whole
    if can_fork():
        for workers in (2, 3):
            resources = Resources(workers=workers)
            assert text(collected(dataset(arrays()), resources, detail=detail)) == whole
    stream = ({"x": a} for a in arrays())
    assert text(collected(stream, Resources(threads=2, workers=2), detail=detail)) == whole


def test_streams_are_read_by_one_thread_and_no_further_than_needed() -> None:
    readers: set[int] = set()

    def samples() -> Iterator[dict[str, Any]]:
        for array in arrays():
            readers.add(threading.get_ident())
            yield {"x": array}

    opened = open_dataset(samples(), module().graph)
    assert Batches(opened).total == 0
    collected(opened, Resources(threads=3))
    assert readers == {threading.get_ident()}


@forks
def test_a_killed_worker_changes_nothing(tmp_path: Path) -> None:
    def die_once(number: int) -> None:
        mark = tmp_path / "died"
        if number == 6 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    whole = text(collected(dataset(arrays())))
    model = Model(die_once)
    found = collect(
        module().graph, dataset(arrays()), model.open_taps, resources=Resources(workers=2)
    )
    assert (tmp_path / "died").exists()
    assert text(found) == whole


def kept(folder: Path, **given: Any) -> Resources:
    def warn(found: object) -> None:
        raise AssertionError(found)

    cache = Cache(KeptFolder(folder, "calibration", SUFFIX), warn)
    return Resources(cache=cache, key="model", **given)


class StoppedError(Exception):
    """Stands for whatever ends a run."""


def interrupted(folder: Path, after: int, threads: int = 1) -> Model:
    """A run that ends at its run of the model number ``after``."""
    ends = itertools.count()

    def end(_: int) -> None:
        if next(ends) == after:
            raise StoppedError

    model = Model(end)
    with pytest.raises(StoppedError):
        collect(
            module().graph,
            dataset(arrays()),
            model.open_taps,
            resources=kept(folder, threads=threads),
        )
    return model


@pytest.mark.parametrize("after", [0, 3, 4, 9, 22])
def test_an_interrupted_run_is_gone_on_from_to_the_bit(tmp_path: Path, after: int) -> None:
    whole = text(collected(dataset(arrays())))
    interrupted(tmp_path, after)
    told: list[str] = []
    model = Model()
    resources = kept(tmp_path, threads=2, tell=told.append)
    found = collect(module().graph, dataset(arrays()), model.open_taps, resources=resources)
    assert text(found) == whole
    done = after // BATCH * BATCH
    assert len(model.seen) == COUNT - done, "no batch that was done is done again"
    assert told == ([f"{done} of {COUNT} samples were found in the cache"] if done else [])


def test_a_finished_run_serves_methods_that_ask_for_no_more(tmp_path: Path) -> None:
    first = collected(dataset(arrays()), kept(tmp_path), detail=Detail.HISTOGRAM)
    for detail, runs in ((Detail.EXTREMES, 0), (Detail.HISTOGRAM, 0), (Detail.SAMPLES, COUNT)):
        model = Model()
        found = collect(
            module().graph,
            dataset(arrays()),
            model.open_taps,
            detail=detail,
            resources=kept(tmp_path),
        )
        assert len(model.seen) == runs
        assert found.statistics["x"].max == first.statistics["x"].max


def change_first(held: list[np.ndarray]) -> None:
    held[0] = held[0] + 1


def change_last(held: list[np.ndarray]) -> None:
    held[-1] = np.nextafter(held[-1], np.float32(9))


@pytest.mark.parametrize(
    "change", [change_first, change_last, list.reverse, list.pop, lambda h: h.pop(0)]
)
def test_changed_data_are_noticed(
    tmp_path: Path, change: Callable[[list[np.ndarray]], object]
) -> None:
    collected(dataset(arrays()), kept(tmp_path))
    other = arrays()
    change(other)
    assert text(collected(dataset(other), kept(tmp_path))) == text(collected(dataset(other)))


def test_samples_that_were_added_at_the_end_are_all_that_is_run(tmp_path: Path) -> None:
    more = arrays(8)
    collected(dataset(more), kept(tmp_path))
    more += arrays(6, seed=1)
    model = Model()
    found = collect(module().graph, dataset(more), model.open_taps, resources=kept(tmp_path))
    assert len(model.seen) == 6
    assert text(found) == text(collected(dataset(more)))


def test_another_key_finds_nothing(tmp_path: Path) -> None:
    collected(dataset(arrays()), kept(tmp_path))
    model = Model()
    other = Resources(cache=kept(tmp_path).cache, key="another model")
    collect(module().graph, dataset(arrays()), model.open_taps, resources=other)
    assert len(model.seen) == COUNT


@pytest.mark.parametrize("content", [b"", b"\0" * 100, None])
def test_damaged_entries_are_done_again(tmp_path: Path, content: bytes | None) -> None:
    whole = text(collected(dataset(arrays()), kept(tmp_path)))
    (path,) = tmp_path.rglob("*.statistics")
    held = path.read_bytes()
    path.write_bytes(held[:-1] if content is None else content)
    assert text(collected(dataset(arrays()), kept(tmp_path))) == whole
    assert path.read_bytes() == held


def test_a_digest_tells_names_types_shapes_and_elements_apart() -> None:
    one = np.array([[1, 2]], np.int32)
    samples = [
        {"x": one},
        {"y": one},
        {"x": one.T},
        {"x": one.view(np.float32)},
        {"x": one + 1},
        {"x": one, "y": one},
        {"x": np.array(["a"], object)},
        {"x": np.array(["b"], object)},
        {"x": np.array(1, np.int32)},
    ]
    found: set[str] = set()
    for sample in samples:
        digest = Digest()
        digest.add(sample)
        found.add(digest.text())
    assert len(found) == len(samples)


def test_errors_of_samples_come_up() -> None:
    def missing() -> dict[str, Any]:
        raise QdqcError("can't read the image", file="7.png")

    items = [*(lambda a=a: {"x": a} for a in arrays(3)), missing]
    for resources in (Resources(), Resources(threads=2)):
        with pytest.raises(QdqcError, match=r"7\.png: error: can't read the image"):
            collected(Dataset(items, "files"), resources)


@forks
@pytest.mark.parametrize("given", [{"threads": 1}, {"threads": 2}, {"workers": 2}])
def test_killed_runs_repeat_no_more_than_was_in_work(tmp_path: Path, given: dict[str, int]) -> None:
    """SIGKILL at random moments, again and again, until a run comes to its end."""
    whole = text(collected(dataset(arrays())))
    log, done = tmp_path / "log", tmp_path / "done"

    def note(_: int) -> None:
        time.sleep(0.02)  # a whole run takes longer than the first kill waits
        with log.open("a") as file:
            file.write("run\n")

    def run() -> None:
        model = Model(note)
        resources = kept(tmp_path / "cache", **given)
        found = collect(module().graph, dataset(arrays()), model.open_taps, resources=resources)
        written = tmp_path / "written"
        written.write_bytes(text(found))
        written.rename(done)  # a kill between opening and writing would leave it empty

    draw = random.Random(0)
    kills = 0
    while not done.exists():
        process = multiprocessing.get_context("fork").Process(target=run)
        process.start()
        process.join(draw.uniform(0.03, 0.1) if kills < 10 else None)
        if process.is_alive():
            process.kill()
            process.join()
            kills += 1
    assert kills
    assert done.read_bytes() == whole
    time.sleep(0.1)  # workers whose parent was killed end after the batch that they are at
    # A worker has a batch at work and one that waits for it; one may be on its way to the cache.
    at_work = 2 * given["workers"] + 1 if "workers" in given else given["threads"] + 1
    repeated = len(log.read_text().splitlines()) - COUNT
    assert repeated <= kills * at_work * BATCH


def test_a_memory_limit_takes_several_runs_and_gives_the_same(tmp_path: Path) -> None:
    whole = text(collected(dataset(arrays())))
    opened: list[tuple[str, ...]] = []

    def open_taps(names: Sequence[str], /) -> Callable[[dict[str, Any]], dict[str, Any]]:
        opened.append(tuple(names))
        every = Model().open_taps(["x", "y"])
        return lambda sample: {n: every(sample)[n] for n in names}

    told: list[str] = []
    measured = iter([50_000_000, 60_000_000])
    resources = kept(
        tmp_path,
        memory_limit=81_000_000,
        threads=3,
        measure=lambda _: next(measured),
        tell=told.append,
    )
    seen: list[tuple[int, int]] = []
    found = collect(
        module().graph,
        dataset(arrays()),
        open_taps,
        lambda *done: seen.append(done),
        resources=resources,
    )
    assert text(found) == whole
    assert opened == [("x",), ("y",)]
    assert told == ["the memory limit takes 2 runs over the data"]
    assert seen[-1] == (2 * COUNT, 2 * COUNT)
    assert seen == sorted(seen)


def test_a_memory_limit_refuses_what_it_cannot_hold() -> None:
    resources = Resources(memory_limit=10**6, measure=lambda _: 5 * 10**7)
    with pytest.raises(QdqcError, match=r"1MB is too small: .* takes 71MB\nnote: give 71MB or mo"):
        collected(dataset(arrays()), resources)
    with pytest.raises(QdqcError, match="samples that can be read more than once"):
        collected(({"x": a} for a in arrays()), resources)
