"""Files of calibration data: which there are in a folder or list, and what they hold."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from qdqc.data.archive import DAMAGED, Archive, read_header
from qdqc.data.fit import Header, Sample
from qdqc.data.images import check_pixels, unreadable
from qdqc.diagnostics import QdqcError

__all__ = ["IMAGES", "check_image", "kind", "load", "read_headers", "read_list", "scan_folder"]

IMAGES = frozenset(
    {".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}
)
_JPEG_END, _JPEG_TAIL = b"\xff\xd9", 1024
_NEXT = "a data set is a folder of images, of npz or of npy files, one npz, or a `data_list`"


def kind(path: Path) -> str | None:
    """``image``, ``npz`` or ``npy`` by the file's suffix; None for anything else."""
    suffix = path.suffix.lower()
    if suffix in IMAGES:
        return "image"
    return suffix[1:] if suffix in (".npz", ".npy") else None


def scan_folder(folder: Path) -> list[Path]:
    """The data files under a folder, of one kind, sorted by path.

    Hidden files and folders are left out. Raises QdqcError for an empty folder, for one
    without data, and for one with several kinds.
    """
    try:
        files = sorted(p for p in folder.rglob("*") if p.is_file() and not _hidden(p, folder))
    except OSError as err:
        raise _failed(folder, err) from err
    by_kind: dict[str, list[Path]] = {}
    for path in files:
        by_kind.setdefault(kind(path) or "", []).append(path)
    others = by_kind.pop("", [])
    if not by_kind:
        reason = "the folder is empty" if not others else f"none of its {len(others)} files fits"
        raise QdqcError(f"no data: {reason}", file=str(folder), notes=[_NEXT])
    if len(by_kind) > 1:
        text = ", ".join(f"{len(p)} {k}" for k, p in by_kind.items())
        raise QdqcError(
            f"the folder holds data of several kinds: {text}",
            file=str(folder),
            notes=["keep one kind in a folder, or name the files in a `data_list`"],
        )
    return next(iter(by_kind.values()))


def read_list(path: Path, inputs: int) -> list[list[Path]]:
    """The samples of a list: one a line, the files of several inputs separated by commas.

    A line is one npz or as many files as the model has inputs. A name that holds a comma stands
    in double quotes. Relative paths start at the list's folder, or at the current one. Raises
    QdqcError with the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as err:
        raise _failed(path, err) from err
    out: list[list[Path]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        files = [_resolve(part.strip(), path, number) for part in _names(line)]
        whole = len(files) == 1 and kind(files[0]) == "npz"
        if len(files) != inputs and not whole:
            raise QdqcError(
                f"the line names {len(files)} files, but the model has {inputs} inputs",
                file=f"{path}:{number}",
                notes=["name one file an input, separated by commas, or one npz"],
            )
        out.append(files)
    if not out:
        raise QdqcError("the list names no files", file=str(path), notes=[_NEXT])
    return out


def _names(line: str) -> list[str]:
    return next(csv.reader([line], skipinitialspace=True))


def read_headers(path: Path) -> dict[str, Header]:
    """Names, element types and shapes of the arrays of an npz or npy, without their contents.

    The array of an npy is called ``arr_0``. Raises QdqcError; pickled arrays are refused.
    """
    try:
        if kind(path) == "npy":
            with path.open("rb") as stream:
                return {"arr_0": read_header(stream, path.stat().st_size)}
        out: dict[str, Header] = {}
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                with archive.open(member) as stream:
                    name = member.filename.removesuffix(".npy")
                    out[name] = read_header(stream, member.file_size)
    except DAMAGED as err:
        raise _failed(path, err) from err
    return out


def load(path: Path, keys: Iterable[str]) -> Sample:
    """The named arrays of an npz, or the one of an npy as a memory map. Raises QdqcError."""
    try:
        if kind(path) == "npy":
            return {"arr_0": np.load(path, mmap_mode="r", allow_pickle=False)}
        with Archive(path) as archive:
            return {key: archive[key] for key in keys}
    except DAMAGED as err:
        raise _failed(path, err) from err


def check_image(path: Path) -> None:
    """Whether the file holds an image, whole as far as can be known without decoding it.

    Its parts are walked through, with their checksums where the format has them; a JPEG without
    an end is decoded, which is certain. Raises QdqcError.
    """
    try:
        with Image.open(path) as image:
            is_jpeg = image.format in ("JPEG", "MPO")
            check_pixels(image)
            image.verify()
        if is_jpeg and not _has_end(path):
            with Image.open(path) as image:
                image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as err:
        raise unreadable(path, err) from err


def _has_end(path: Path) -> bool:
    """Whether a JPEG's last bytes hold its marker of the end; some programs pad behind it."""
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - _JPEG_TAIL))
        return _JPEG_END in stream.read()


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _resolve(text: str, listing: Path, number: int) -> Path:
    for path in (listing.parent / text, Path(text)):
        if text and path.is_file():
            if kind(path) is None:
                raise QdqcError(
                    f"'{text}' is neither an image nor npz nor npy",
                    file=f"{listing}:{number}",
                    notes=[_NEXT],
                )
            return path
    raise QdqcError(
        f"there is no file '{text}'",
        file=f"{listing}:{number}",
        notes=[f"relative paths start at {listing.parent} or at the current folder"],
    )


def _failed(path: Path, err: Exception) -> QdqcError:
    reason = (err.strerror if isinstance(err, OSError) else None) or str(err)
    if isinstance(err, zipfile.BadZipFile):
        reason = "it is not an npz file, or is cut short"
    return QdqcError(
        f"can't read the data: {reason}",
        file=str(path),
        notes=["replace or remove the file, then run again"],
    )
