"""Modules in files: ``x.qir`` with its sidecar ``x.safetensors`` in the same folder."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from qdqc.diagnostics import QdqcError
from qdqc.files import Content, write_together, write_whole
from qdqc.ir.graph import Module
from qdqc.ir.spelling import SpellingError
from qdqc.text.parser import parse_module
from qdqc.text.printer import module_lines
from qdqc.text.sidecar import Sidecar, sidecar_writer, tensors
from qdqc.text.values import Resolve

__all__ = ["SharedSidecar", "load", "qir_files", "read_text", "save", "sidecar_opener"]

_SUFFIX = ".safetensors"
_MADE = "model_transform makes one of an ONNX model"


def save(module: Module, path: str | Path, *, elide: bool = False) -> None:
    """Write ``x.qir`` and, where it has larger constants, ``x.safetensors`` beside it.

    Both appear whole or not at all; a file of that name that is not a sidecar is left alone.
    ``elide`` writes the text alone, without the contents of larger constants. Raises QdqcError.
    """
    files = qir_files(module, path, elide=elide)
    if len(files) == 1:
        write_whole(path, files[0][1])
    else:
        write_together(files)


def qir_files(
    module: Module, path: str | Path, *, elide: bool = False
) -> list[tuple[Path, Content]]:
    """The files that ``save`` writes, the text last. Raises QdqcError."""
    weights = {} if elide else tensors(module)
    if not weights:
        return [(Path(path), _text_writer(module, Path(path), elide, None))]
    target = Path(path).resolve()
    sidecar = target.with_suffix(_SUFFIX)
    if sidecar == target:
        raise QdqcError(f"'{target}' is the name of its own sidecar: name the text .qir")
    if sidecar.exists():
        _open_own(sidecar)
    text = _text_writer(module, target, False, sidecar.name)
    return [(sidecar, sidecar_writer(weights)), (target, text)]


def load(path: str | Path, *, verify: bool = False) -> Module:
    """The module of a .qir file; its weights stay on the disk until somebody looks at them.

    Raises QdqcError, located, where the text or its sidecar can't be used.
    """
    target = Path(path)
    text = read_text(target)
    opener = sidecar_opener(target)
    return parse_module(text, file=str(target), open_sidecar=opener, verify=verify)


def read_text(path: Path) -> str:
    """A text file in UTF-8, line ends unified. Raises QdqcError."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise QdqcError(
            f"can't read the text: {error.strerror}",
            file=str(path),
            notes=[f"give the path of a .qir file; {_MADE}"],
        ) from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        onnx = path.suffix == ".onnx"
        what = "an ONNX model" if onnx else f"no text in UTF-8 (byte {error.start})"
        raise QdqcError(
            f"this is {what}: a .qir file is wanted",
            file=str(path),
            notes=[f"{_MADE}: model_transform --model_def {path if onnx else 'NET.onnx'}"],
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def sidecar_opener(path: Path) -> Callable[[str], Resolve]:
    """What finds the sidecar of the text at ``path``: a plain name in its own folder."""

    def open_sidecar(name: str) -> Resolve:
        folder = path.resolve().parent
        plain = name not in ("", ".", "..") and not any(c in name for c in "/\\\0:")
        if not plain:
            raise QdqcError(
                f"the weights '{name}' are not a file name",
                notes=["a sidecar lies in the folder of its .qir, and is named without a path"],
            )
        sidecar = folder / name
        if sidecar.resolve().parent != folder:
            raise QdqcError(
                f"the weights '{name}' are a link out of the folder '{folder}'",
                notes=["copy the file beside the .qir"],
            )
        return Sidecar(sidecar).get

    return open_sidecar


class SharedSidecar:
    """One sidecar for all dumps of a folder: each tensor is stored once."""

    def __init__(self, folder: str | Path, name: str = "weights.safetensors") -> None:
        self.folder = Path(folder)
        self.path = self.folder / name

    @functools.cached_property
    def _written(self) -> Sidecar | None:
        return _open_own(self.path) if self.path.exists() else None

    def save(self, module: Module, name: str) -> Path:
        """Write ``folder/name``, and add to the sidecar what it has not got yet.

        Raises QdqcError; the texts written before stay whole.
        """
        target = self.folder / name
        weights = tensors(module)
        known = set(self._written.digests) if self._written is not None else set[str]()
        text = _text_writer(module, target, False, self.path.name if weights else None)
        if weights.keys() <= known:
            write_whole(target, text)
            return target
        write_together([(self.path, sidecar_writer(weights, self._written)), (target, text)])
        del self._written
        return target


def _open_own(path: Path) -> Sidecar:
    """The sidecar that would be replaced. Raises QdqcError for a file of another kind."""
    try:
        return Sidecar(path)
    except QdqcError as error:
        d = error.diagnostic
        raise QdqcError(
            f"'{path}' would be overwritten, but {d.message}",
            file=str(path),
            notes=["give the output another name, or move that file away"],
        ) from None


def _text_writer(module: Module, path: Path, elide: bool, weights: str | None) -> Content:
    def write(file: BinaryIO) -> None:
        try:
            for line in module_lines(module, elide=elide, weights=weights):
                file.write(line.encode() + b"\n")
        except SpellingError as error:
            raise QdqcError(str(error), file=str(path)) from None

    return write
