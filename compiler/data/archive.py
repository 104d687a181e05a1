"""Arrays in npz files: read one at a time, never unpickled, written whole or not at all."""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.lib.format as npy_format
import numpy.typing as npt

from compiler.diagnostics import QdqcError, suggestion
from compiler.files import write_whole
from compiler.ir.types import Elem

__all__ = ["Archive", "read_header", "write_arrays"]

_DAMAGED = (
    EOFError,
    KeyError,
    NotImplementedError,  # a compression that zipfile has not
    OSError,
    RuntimeError,  # an encrypted member
    SyntaxError,
    ValueError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
_SUFFIX = ".npy"


class Archive(Mapping[str, npt.NDArray[Any]]):
    """The arrays of an npz file by name; each is read when it is asked for.

    Raises QdqcError where the file is missing or is no npz, and, when an array is looked up,
    for an unknown name (with the nearest), pickled objects and damaged contents.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with zipfile.ZipFile(self.path) as archive:
                names = archive.namelist()
        except zipfile.BadZipFile:
            raise QdqcError(
                "this is no npz file",
                file=str(self.path),
                notes=["numpy.savez and model_runner write such files"],
            ) from None
        except _DAMAGED as error:
            raise self._damaged(error) from None
        self._members = {n.removesuffix(_SUFFIX): n for n in names}

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        member = self._members.get(name)
        if member is None:
            raise QdqcError(
                f"there is no array '{name}'{suggestion(name, self._members)}",
                file=str(self.path),
                notes=[f"npz_tool dump {self.path} lists its {len(self)} arrays"],
            )
        try:
            with zipfile.ZipFile(self.path) as archive:
                size = archive.getinfo(member).file_size
                with archive.open(member) as stream:
                    read_header(stream, size)
                with archive.open(member) as stream:
                    return np.asarray(npy_format.read_array(stream, allow_pickle=False))
        except _DAMAGED as error:
            raise self._damaged(error, name) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def _damaged(self, error: Exception, name: str | None = None) -> QdqcError:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        what = "the file" if name is None else f"the array '{name}'"
        return QdqcError(
            f"can't read {what}: {reason}",
            file=str(self.path),
            notes=["give an npz file of plain arrays, as numpy.savez and model_runner write it"],
        )


def read_header(stream: Any, size: int) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Element type and shape of an npy of ``size`` bytes, without its contents.

    Raises ValueError for pickled objects, and where it claims more than these bytes.
    """
    version = npy_format.read_magic(stream)
    first = version == (1, 0)
    read = npy_format.read_array_header_1_0 if first else npy_format.read_array_header_2_0
    shape, _, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError("it holds pickled objects, which are never loaded")
    wanted = math.prod(shape) * dtype.itemsize
    if stream.tell() + wanted > size:
        raise ValueError(f"it is cut short: {wanted} bytes of numbers do not fit into {size}")
    return dtype, shape


def write_arrays(
    path: str | Path,
    arrays: Mapping[str, npt.NDArray[Any]],
    inputs: Iterable[str | Path] = (),
) -> None:
    """Write an npz file, whole or not at all. Raises QdqcError.

    Types that npz has not (bfloat16, float8, int4) become the next larger one, strings become
    numpy's. ``inputs`` are files that must not be written over.
    """

    def fill(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w", allowZip64=True) as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}{_SUFFIX}", "w", force_zip64=True) as stream:
                    npy_format.write_array(stream, _plain(array), allow_pickle=False)

    write_whole(path, fill, inputs)


def _plain(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    found = np.asanyarray(array)
    if found.dtype.kind == "O":
        return found.astype(np.str_)
    if found.dtype.kind != "V":
        return found
    return found.astype(np.float32 if Elem.of(found.dtype).is_float else np.int8)
