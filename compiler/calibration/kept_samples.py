"""A few of the samples that a table comes from, in a file beside it: real data to check with."""

from __future__ import annotations

import hashlib
import math
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.lib.format as npy_format

from qdqc.data.archive import Archive, plain
from qdqc.data.dataset import Dataset
from qdqc.data.fit import InputSpec, Sample, input_specs
from qdqc.diagnostics import QdqcError
from qdqc.ir.graph import Graph
from qdqc.ir.types import Array

__all__ = ["KEPT", "KeptSamples", "kept_beside", "kept_of", "samples_path"]

KEPT = 16
"""Samples that are kept by default."""

MOST_BYTES = 32_000_000
"""Bytes that they take at most, before they are compressed."""

_SUFFIX = ".samples.npz"
_NAME = re.compile(r"(\d+)/(.*)", re.DOTALL)


def samples_path(table: str | Path) -> Path:
    """The file of the samples of a table: its name and ``.samples.npz``."""
    path = Path(table)
    return path.with_name(path.name + _SUFFIX)


@dataclass(frozen=True)
class KeptSamples:
    """Arrays of a few samples by number and input; images are pixels, u8, where that is exact."""

    arrays: Sequence[Mapping[str, Array]]

    @property
    def text(self) -> str:
        """How many there are and the digest of their numbers, as a table's header has it."""
        return f"{len(self.arrays)} sha256:{self.digest}"

    @cached_property
    def digest(self) -> str:
        """sha256 of names, types, shapes and numbers, in hexadecimal."""
        sum_ = hashlib.sha256()
        for name, array in self._named():
            sum_.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
            sum_.update(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")
        return sum_.hexdigest()

    def samples(self, graph: Graph) -> list[Sample]:
        """The samples as a graph's inputs take them. Raises QdqcError where they fit no more."""
        return [_restored(arrays, input_specs(graph)) for arrays in self.arrays]

    def write(self, file: BinaryIO) -> None:
        """The npz: arrays ``number/input``."""
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, array in self._named():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                    npy_format.write_array(stream, array, allow_pickle=False)

    def _named(self) -> Iterator[tuple[str, Array]]:
        for number, arrays in enumerate(self.arrays):
            for name, array in arrays.items():
                yield f"{number}/{name}", array


def kept_of(data: Dataset, graph: Graph, count: int) -> KeptSamples | None:
    """The first of some samples, at most ``count`` and no more than ``MOST_BYTES``.

    None where none can be kept: of strings, where one alone is larger, and where they come from an
    iterator that has been used up. Samples that can be read on their own are spread over all.
    """
    kept: list[Mapping[str, Array]] = []
    size, specs = 0, input_specs(graph)
    try:
        for sample in _spread(data, count):
            arrays = {spec.name: _compact(sample[spec.name], spec) for spec in specs}
            size += sum(array.nbytes for array in arrays.values())
            if size > MOST_BYTES or any(a.dtype.kind not in "biufc" for a in arrays.values()):
                break
            kept.append(arrays)
    except QdqcError:
        return None
    return KeptSamples(kept) if kept else None


def kept_beside(table: Path, stated: str) -> KeptSamples:
    """The samples in the file beside a table whose header says ``stated``.

    Raises QdqcError where there is no such file, it is damaged, or it holds other samples.
    """
    path = samples_path(table)
    if not path.is_file():
        raise QdqcError(
            "the samples that the calibration table was written with are not beside it",
            file=str(path),
            notes=["keep both files together, or calibrate again"],
        )
    archive = Archive(path)
    size = sum(math.prod(h.shape) * h.dtype.itemsize for h in map(archive.header, archive))
    if size > 2 * MOST_BYTES:
        raise _foreign(path)
    by_number: dict[int, dict[str, Array]] = {}
    with archive:
        for name in archive:
            match = _NAME.fullmatch(name)
            if match is None:
                raise _foreign(path)
            by_number.setdefault(int(match[1]), {})[match[2]] = archive[name]
    kept = KeptSamples([by_number[number] for number in sorted(by_number)])
    if kept.text != stated:
        raise _foreign(path)
    return kept


def _foreign(path: Path) -> QdqcError:
    return QdqcError(
        "these are not the samples that the calibration table was written with",
        file=str(path),
        notes=["keep both files together, or calibrate again"],
    )


def _spread(data: Dataset, count: int) -> Iterator[Sample]:
    """Samples over all of the data where each can be read alone, else the first ones."""
    total = len(data)
    parts = [data.part(i * total // count, i * total // count + 1) for i in range(count)]
    whole = [part for part in parts if part is not None]
    if total <= count or len(whole) < count:
        yield from islice(data, count)
        return
    for part in whole:
        yield from part


def _compact(array: Array, spec: InputSpec) -> Array:
    """The pixels that an image's numbers are made of, where these come back exactly."""
    stated, given = spec.preprocess, plain(array)
    if stated is None or not stated.is_image or given.dtype != np.float32 or given.ndim != 4:
        return given
    with np.errstate(all="ignore"):
        pixels = stated.pixels(given)
        again = stated.numbers(pixels)
    return pixels if np.array_equal(again, given) else given


def _restored(arrays: Mapping[str, Array], specs: Sequence[InputSpec]) -> Sample:
    out: Sample = {}
    for spec in specs:
        array = arrays.get(spec.name)
        if array is None:
            raise QdqcError(f"the samples beside the table have no input '{spec.name}'")
        are_pixels = array.dtype == np.uint8 and spec.type.expressed().elem.is_float
        if are_pixels and spec.preprocess is not None:
            array = spec.preprocess.numbers(np.asarray(array, np.uint8))
        elem = spec.type.expressed().elem if array.dtype.kind == "f" else spec.type.elem
        out[spec.name] = array.astype(elem.dtype, copy=False)
    return out
