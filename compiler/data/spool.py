"""Arrays of many runs on their way into one npz file, without all of them in memory."""

from __future__ import annotations

import contextlib
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, BinaryIO, Self

import numpy as np
import numpy.lib.format as npy_format
import numpy.typing as npt

from qdqc.data.archive import ArrayHeader, plain
from qdqc.diagnostics import QdqcError
from qdqc.files import explained, write_whole

__all__ = ["Spool"]


@dataclass
class _Row:
    """Where the pieces of one value lie: offset, element type and shape of each."""

    pieces: list[tuple[int, np.dtype[Any], tuple[int, ...]]] = field(
        default_factory=list[tuple[int, np.dtype[Any], tuple[int, ...]]]
    )

    def header(self) -> ArrayHeader:
        """That of all pieces, one behind the other along axis 0."""
        dtype = np.result_type(*(dtype for _, dtype, _ in self.pieces))
        shapes = [shape for _, _, shape in self.pieces]
        if len(shapes) == 1:
            return ArrayHeader(dtype, shapes[0], fortran=False)
        lengths = sum(shape[0] if shape else 1 for shape in shapes)
        return ArrayHeader(dtype, (lengths, *shapes[0][1:]), fortran=False)


class Spool:
    """Keeps the values of each run in a file beside the output until all are there.

    The values of several runs are joined along axis 0, scalars as a vector; those of a single
    run stay as they are.
    """

    def __init__(self, output: Path) -> None:
        self._output = output
        folder = output.resolve().parent
        beside = folder if folder.is_dir() else None
        with explained(output):
            file = tempfile.TemporaryFile(dir=beside)  # noqa: SIM115 - __exit__ closes it
        self._file: IO[bytes] = file
        self._rows: dict[str, _Row] = {}
        self.rounds = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # a full disk was reported before
            self._file.close()

    def add(self, values: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take in the values of one run.

        Raises QdqcError where a shape does not fit, and where the disk is full.
        """
        for name, array in values.items():
            contiguous = np.asarray(plain(array), order="C")
            row = self._rows.setdefault(name, _Row())
            if row.pieces and contiguous.shape[1:] != row.pieces[0][2][1:]:
                raise QdqcError(
                    f"'%{name}' has shape {list(row.pieces[0][2])} for one sample and another "
                    "shape for others, so they can't stand in one array",
                    notes=["give the samples one at a time"],
                )
            row.pieces.append((self._file.tell(), contiguous.dtype, contiguous.shape))
            with explained(self._output):
                self._file.write(contiguous.tobytes())
        with explained(self._output):
            self._file.flush()
        self.rounds += 1

    def write(self) -> dict[str, ArrayHeader]:
        """Write the output, whole or not at all; what it holds. Raises QdqcError."""
        headers = {name: row.header() for name, row in self._rows.items()}

        def fill(file: BinaryIO) -> None:
            with zipfile.ZipFile(file, "w", allowZip64=True) as archive:
                for name, header in headers.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as out:
                        self._copy(self._rows[name], header, out)

        write_whole(self._output, fill)
        return headers

    def _copy(self, row: _Row, header: ArrayHeader, out: IO[bytes]) -> None:
        entries = {
            "descr": npy_format.dtype_to_descr(header.dtype),
            "fortran_order": False,
            "shape": header.shape,
        }
        npy_format.write_array_header_1_0(out, entries)
        for offset, dtype, shape in row.pieces:
            self._file.seek(offset)
            content = self._file.read(dtype.itemsize * int(np.prod(shape)))
            if dtype != header.dtype:
                content = np.frombuffer(content, dtype).astype(header.dtype).tobytes()
            out.write(content)
