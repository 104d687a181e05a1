"""Calibration data as a sequence of samples that are read one at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from qdqc.data.bad_samples import BadSamples
from qdqc.data.choice import SEED, choose
from qdqc.data.fit import Cut, InputSpec, Sample, fit_arrays, input_specs
from qdqc.data.given_samples import Given, samples_of_script, stream
from qdqc.data.sample_files import check_image, kind, load, read_headers, read_list, scan_folder
from qdqc.diagnostics import QdqcError
from qdqc.ir.graph import Graph
from qdqc.ir.types import Array, TensorType

__all__ = ["Dataset", "open_dataset", "open_list"]

Loader: TypeAlias = Callable[[], Sample]


class Dataset:
    """Samples, each a dict of one array for each input, read when they are asked for.

    Iterating twice gives the same samples, unless they come from an iterator of the user.
    """

    def __init__(self, items: Sequence[Loader], source: str, *, reads_images: bool = False) -> None:
        self._items = items
        self.source = source
        self.reads_images = reads_images
        """Whether files of images are among the samples."""

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Sample]:
        for item in self._items:
            yield item()

    def part(self, start: int, stop: int) -> Dataset | None:
        """Some of the samples, read on their own; None where they come in a row only."""
        part = self._items[start:stop]
        return Dataset(part, self.source, reads_images=self.reads_images)

    def share(self, takes: Callable[[int], bool]) -> Dataset:
        """The samples whose number, from 0 on, a function takes."""
        items = [item for number, item in enumerate(self._items) if takes(number)]
        return Dataset(items, self.source, reads_images=self.reads_images)


class _Stream(Dataset):
    """Samples of a Python iterable; their number is known where the iterable's is."""

    def __init__(
        self,
        again: Callable[[], Given],
        count: int,
        specs: tuple[InputSpec, ...],
        limit: int,
        bad: BadSamples,
        file: str = "",
    ) -> None:
        super().__init__((), file or "the given samples")
        self._again = again
        self._count = min(count, limit or count) if count else limit
        self._specs = specs
        self._limit = limit
        self._bad = bad
        self._file = file

    def __len__(self) -> int:
        return self._count

    def part(self, start: int, stop: int) -> None:
        """There are none: the samples come in a row."""

    def share(self, takes: Callable[[int], bool]) -> Dataset:
        return _Shared(self, takes)

    def __iter__(self) -> Iterator[Sample]:
        self._bad.count = 0
        return stream(self._again(), self._specs, self._limit, self._bad, self._file)


class _Shared(Dataset):
    """Some of the samples of a stream."""

    def __init__(self, whole: Dataset, takes: Callable[[int], bool]) -> None:
        super().__init__((), whole.source)
        self._whole, self._takes = whole, takes

    def __len__(self) -> int:
        return sum(map(self._takes, range(len(self._whole))))

    def part(self, start: int, stop: int) -> None:
        """There are none: the samples come in a row."""

    def __iter__(self) -> Iterator[Sample]:
        for number, sample in enumerate(self._whole):
            if self._takes(number):
                yield sample

    def share(self, takes: Callable[[int], bool]) -> Dataset:
        return _Shared(self, takes)


def open_dataset(
    source: str | Path | Given,
    graph: Graph,
    *,
    input_num: int = 0,
    batch: int = 1,
    seed: int = SEED,
    bad: BadSamples | None = None,
) -> Dataset:
    """The data of a folder, an npz, npy or image file, of a Python file with a function
    ``dataset``, or of an iterable of dicts of arrays.

    All names, element types and shapes are checked against the graph's inputs before this
    returns (for iterables: as they come). ``input_num`` of 0 takes all samples, else see
    ``choose``; what comes in a row only is cut off behind them. ``batch`` is the number of rows
    of a sample where the batch is a symbol. ``bad`` says how many samples may be left out.
    Raises QdqcError with the file, the reason and the next step.
    """
    specs, bad = _needed_specs(graph), bad or BadSamples()
    if not isinstance(source, str | Path):
        count = len(source) if isinstance(source, Sequence) else 0
        return _Stream(lambda: source, count, specs, input_num, bad)
    path = Path(source)
    if not path.exists():
        raise QdqcError(
            "there is no such file or folder",
            file=str(path),
            notes=["give a folder of images, of npz or of npy files, or one such file"],
        )
    if path.suffix == ".py":
        return _Stream(samples_of_script(path), 0, specs, input_num, bad, str(path))
    files = [[p] for p in scan_folder(path)] if path.is_dir() else [[path]]
    return _opened(files, specs, path, input_num, batch, seed, bad)


def open_list(
    path: str | Path,
    graph: Graph,
    *,
    input_num: int = 0,
    batch: int = 1,
    seed: int = SEED,
    bad: BadSamples | None = None,
) -> Dataset:
    """The data that a list names, one sample a line; otherwise as ``open_dataset``.

    Raises QdqcError with the line.
    """
    specs = _needed_specs(graph)
    files = read_list(Path(path), len(specs))
    return _opened(files, specs, Path(path), input_num, batch, seed, bad or BadSamples())


def _needed_specs(graph: Graph) -> tuple[InputSpec, ...]:
    specs = input_specs(graph)
    if not specs:
        raise QdqcError(
            "the model has no inputs, so there is nothing to calibrate",
            notes=["its results are constants"],
        )
    return specs


def _opened(
    files: list[list[Path]],
    specs: tuple[InputSpec, ...],
    source: Path,
    input_num: int,
    batch: int,
    seed: int,
    bad: BadSamples,
) -> Dataset:
    """Samples of files. Those of one sample each are chosen before they are looked into."""
    kinds = {kind(p) for group in files for p in group}
    if None in kinds:
        raise QdqcError(
            "the file is neither an image nor npz nor npy",
            file=str(source),
            notes=["give a list of files as `data_list`"],
        )
    many = "npz" in kinds or (kinds == {"npy"} and len(specs) == 1)
    used = files if many else [files[i] for i in choose(len(files), input_num, seed)]
    items: list[Loader] = []
    for group in used:
        items += bad.tried(lambda g=group: _items(g, specs, batch, many)) or []
    if not items:
        raise QdqcError("no calibration data: all samples are left out", file=str(source))
    if many:
        items = [items[i] for i in choose(len(items), input_num, seed)]
    else:
        items = _batches(items, specs, batch)
    return Dataset(items, str(source), reads_images="image" in kinds)


def _items(group: list[Path], specs: tuple[InputSpec, ...], batch: int, many: bool) -> list[Loader]:
    """The samples of a file that may hold many, or the one of files for each input."""
    if many and len(group) == 1 and kind(group[0]) != "image":
        return _from_arrays(group[0], specs, batch)
    return [_loader(group, specs)]


def _from_arrays(path: Path, specs: tuple[InputSpec, ...], batch: int) -> list[Loader]:
    """The samples of an npz or npy; samples of one file share what was read last."""
    cut = fit_arrays(specs, read_headers(path), str(path), batch)
    return [functools.partial(_take, path, cut, index) for index in range(cut.count)]


def _take(path: Path, cut: Cut, index: int) -> Sample:
    keys = tuple(cut.keys.values())
    arrays = _load_last(path, keys) if cut.count > 1 else load(path, keys)
    return cut.take(arrays, index)


@functools.lru_cache(maxsize=1)
def _load_last(path: Path, keys: tuple[str, ...]) -> Sample:
    return load(path, keys)


def _loader(files: list[Path], specs: tuple[InputSpec, ...]) -> Loader:
    """One row for each input, from images and npy files. Raises QdqcError."""
    if len(files) != len(specs):
        raise QdqcError(
            f"an image or npy file holds one input, but the model has {len(specs)}: "
            f"{', '.join(s.name for s in specs)}",
            file=str(files[0]),
            notes=["give npz files with one array an input, or a `data_list`"],
        )
    parts = [
        _image(path, spec) if kind(path) == "image" else _row(path, spec)
        for path, spec in zip(files, specs, strict=True)
    ]

    def loader() -> Sample:
        return {s.name: part() for s, part in zip(specs, parts, strict=True)}

    return loader


def _image(path: Path, spec: InputSpec) -> Callable[[], Array]:
    preprocess = spec.preprocess
    if preprocess is None:
        raise QdqcError(
            f"the model does not say how an image becomes its input '{spec.name}'",
            file=str(path),
            notes=["state `pixel_format`, `mean`, `scale` at model_transform, or give npz data"],
        )
    preprocess.check(spec.type)
    check_image(path)
    return lambda: _numbers(preprocess.apply(path, spec.type), spec.type)


def _numbers(image: Array, type: TensorType) -> Array:
    """An image's numbers as the input has them: pixels are rounded, a scale is left to others."""
    if type.quant is not None or type.elem.is_float:
        return image.astype(type.expressed().elem.dtype, copy=False)
    return np.rint(image).clip(*type.elem.limits).astype(type.elem.dtype)


def _row(path: Path, spec: InputSpec) -> Callable[[], Array]:
    cut = fit_arrays((spec,), read_headers(path), str(path))
    if cut.count != 1:
        raise QdqcError(
            f"the file holds {cut.count} samples of input '{spec.name}', but stands for one",
            file=str(path),
            notes=["one sample a line; an npz may hold many samples of all inputs"],
        )
    return lambda: cut.take(load(path, cut.keys.values()), 0)[spec.name]


def _batches(rows: list[Loader], specs: tuple[InputSpec, ...], batch: int) -> list[Loader]:
    """Rows put together to the graph's batch; the last batch is filled from the first rows."""
    lead = specs[0].shape[0] if specs[0].shape else 1
    size = lead if isinstance(lead, int) else batch
    if size <= 1:
        return rows
    fixed = isinstance(lead, int)
    groups: list[list[Loader]] = []
    for start in range(0, len(rows), size):
        group = rows[start : start + size]
        while fixed and len(group) < size:
            group += rows[: size - len(group)]
        groups.append(group)
    return [functools.partial(_joined, group) for group in groups]


def _joined(group: list[Loader]) -> Sample:
    samples = [loader() for loader in group]
    return {n: np.concatenate([s[n] for s in samples]) for n in samples[0]}
