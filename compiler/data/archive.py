"""Arrays in npz files: read one at a time, never unpickled, written whole or not at all."""

from __future__ import annotations

import contextlib
import lzma
import math
import sys
import tokenize
import zipfile
import zlib
from collections.abc import Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple, Self

import numpy as np
import numpy.lib.format as npy_format
import numpy.typing as npt

from qdqc.diagnostics import QdqcError, suggestion
from qdqc.files import Content, write_whole
from qdqc.ir.types import Elem
from qdqc.memory import refuse_larger
from qdqc.user_files import brief

__all__ = [
    "DAMAGED",
    "Archive",
    "ArrayHeader",
    "arrays_content",
    "copy_arrays",
    "plain",
    "read_header",
    "write_arrays",
]

CHUNK = 1 << 18
"""Elements in memory at a time where arrays are streamed."""

_COPIED = 1 << 20

DAMAGED = (
    ArithmeticError,  # sizes beyond any machine's
    EOFError,
    LookupError,
    OSError,
    RuntimeError,  # an encrypted member, a compression that zipfile has not, brackets in brackets
    SyntaxError,
    TypeError,
    ValueError,
    lzma.LZMAError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What numpy and zipfile raise for a file that is damaged, or not of their kind."""
_SUFFIX = ".npy"


class ArrayHeader(NamedTuple):
    """Element type and shape of an array, and whether its first axis lies closest together."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


class Archive(Mapping[str, npt.NDArray[Any]]):
    """The arrays of an npz file by name; each is read when it is asked for.

    ``with`` keeps the file open, which saves reading its list of names for every array.
    Raises QdqcError where the file is missing or is not an npz, and, when an array is looked up,
    for an unknown name (with the nearest), pickled objects and damaged contents.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with zipfile.ZipFile(self.path) as archive:
                names = archive.namelist()
        except zipfile.BadZipFile:
            raise QdqcError(
                "this is not an npz file",
                file=str(self.path),
                notes=["numpy.savez and model_runner write such files"],
            ) from None
        except DAMAGED as error:
            raise self._damaged(error) from None
        self._members = {n.removesuffix(_SUFFIX): n for n in names}
        self._zip: zipfile.ZipFile | None = None

    def __enter__(self) -> Self:
        self._zip = zipfile.ZipFile(self.path)
        return self

    def __exit__(self, *_: object) -> None:
        if self._zip is not None:
            self._zip.close()
            self._zip = None

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        with self._opened(name) as (header, stream):
            refuse_larger(math.prod(header.shape) * header.dtype.itemsize, "unpacked it")
            return np.asarray(npy_format.read_array(stream, allow_pickle=False))

    def header(self, name: str) -> ArrayHeader:
        """Element type and shape of an array, without its contents. Raises QdqcError."""
        with self._opened(name) as (header, _):
            return header

    def chunks(self, name: str) -> Iterator[npt.NDArray[Any]]:
        """The elements of an array, the last axis counting fastest, at most ``CHUNK`` at a time.

        An array that lies the other way round is read whole. Raises QdqcError.
        """
        if self.header(name).fortran:
            flat = self[name].reshape(-1)
            yield from (flat[i : i + CHUNK] for i in range(0, flat.size, CHUNK))
            return
        with self._opened(name) as (header, stream):
            _array_header(stream)
            left = math.prod(header.shape)
            while left:
                count = min(left, CHUNK)
                content = stream.read(count * header.dtype.itemsize)
                yield np.frombuffer(content, header.dtype, count)
                left -= count
            stream.read(1)  # the end, where the contents are checked against their checksum

    def copy(self, name: str, out: IO[bytes]) -> None:
        """Write an array to another file as it is stored here. Raises QdqcError."""
        with self._opened(name) as (_, stream):
            while part := stream.read(_COPIED):
                out.write(part)

    @contextlib.contextmanager
    def _opened(self, name: str) -> Generator[tuple[ArrayHeader, IO[bytes]]]:
        """An array's header, and its npy from the beginning; damage becomes a QdqcError."""
        member = self._members.get(name)
        if member is None:
            raise QdqcError(
                f"there is no array '{name}'{suggestion(name, self._members)}",
                file=str(self.path),
                notes=[f"npz_tool dump {self.path} lists its {len(self)} arrays"],
            )
        try:
            with self._archive() as archive:
                size = archive.getinfo(member).file_size
                with archive.open(member) as stream:
                    header = _array_header(stream, size)
                with archive.open(member) as stream:
                    yield header, stream
        except DAMAGED as error:
            raise self._damaged(error, name) from None

    def _archive(self) -> contextlib.AbstractContextManager[zipfile.ZipFile]:
        if self._zip is not None:
            return contextlib.nullcontext(self._zip)
        return zipfile.ZipFile(self.path)

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
    header = _array_header(stream, size)
    return header.dtype, header.shape


def _array_header(stream: Any, size: int | None = None) -> ArrayHeader:
    version = npy_format.read_magic(stream)
    first = version == (1, 0)
    read = npy_format.read_array_header_1_0 if first else npy_format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError("it holds pickled objects, which are never loaded")
    if not all(type(d) is int and d >= 0 for d in shape):
        raise ValueError(f"its shape {brief(shape)} is none")
    if math.prod(max(d, 1) for d in shape) * max(dtype.itemsize, 1) > sys.maxsize:
        raise ValueError(f"its shape {brief(shape)} is larger than any memory")
    wanted = math.prod(shape) * dtype.itemsize
    if size is not None and stream.tell() + wanted > size:
        raise ValueError(f"it is cut short: {wanted} bytes of numbers do not fit into {size}")
    return ArrayHeader(dtype, shape, fortran)


def write_arrays(
    path: str | Path,
    arrays: Mapping[str, npt.NDArray[Any]],
    inputs: Iterable[str | Path] = (),
) -> None:
    """Write an npz file, whole or not at all. Raises QdqcError.

    Types that npz has not (bfloat16, float8, int4) become the next larger one, strings become
    numpy's. ``inputs`` are files that must not be written over.
    """
    write_whole(path, arrays_content(arrays), inputs)


def arrays_content(arrays: Mapping[str, npt.NDArray[Any]]) -> Content:
    """What ``write_arrays`` writes into the file."""

    def fill(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w", allowZip64=True) as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}{_SUFFIX}", "w", force_zip64=True) as stream:
                    npy_format.write_array(stream, plain(array), allow_pickle=False)

    return fill


def copy_arrays(path: str | Path, arrays: Mapping[str, tuple[Archive, str]]) -> None:
    """Write arrays of other files under new names, a piece at a time. Raises QdqcError.

    The file appears whole or not at all, and never over one that is read.
    """

    def fill(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w", allowZip64=True) as written:
            for name, (archive, source) in arrays.items():
                with written.open(f"{name}{_SUFFIX}", "w", force_zip64=True) as out:
                    archive.copy(source, out)

    write_whole(path, fill, {archive.path for archive, _ in arrays.values()})


def plain(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """An array of a type that npz has, as ``write_arrays`` says."""
    out = np.asanyarray(array)
    if out.dtype.kind == "O":
        return out.astype(np.str_)
    if out.dtype.kind != "V":
        return out
    return out.astype(np.float32 if Elem.of(out.dtype).is_float else np.int8)
