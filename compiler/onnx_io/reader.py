"""From a file to a ModelProto, with an answer for everything that is no ONNX model."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from google.protobuf.message import DecodeError
from onnx import ModelProto

from qdqc.diagnostics import QdqcError, suggestion
from qdqc.ir.mapped import map_file
from qdqc.onnx_io.light import WireError, light_bytes

__all__ = ["read_model"]

_PROTOBUF_LIMIT = 1 << 31

_MAPPED_FROM = 1 << 26
"""Files of fewer bytes are read whole."""

_BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a git-LFS pointer; fetch the file itself with 'git lfs pull'"),
    (b"\x93NUMPY", "a numpy array (.npy)"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"\x89HDF", "an HDF5 file (Keras); convert it with tf2onnx"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x80\x02", "a Python pickle (PyTorch); export it with torch.onnx.export"),
    (b"\x80\x04", "a Python pickle; export the model with torch.onnx.export"),
    (b"module @", "qdqc's own text form; load it with qdqc.load or qir_opt"),
    (b"module ", "an MLIR text"),
    (b"ML\xefR", "MLIR bytecode"),
    (b"BZh", "a bzip2 archive; unpack it first"),
    (b"GGUF", "a GGUF model"),
)


def read_model(path: Path) -> ModelProto:
    """Parse an ONNX file; external data stay where they are.

    So do large tensors of a large file: their external location is ``OWN_FILE``. Raises
    QdqcError for what is missing, empty, cut short or no ONNX model.
    """
    file = str(path)
    blob = _read_bytes(path)
    if not blob:
        raise QdqcError("the file is empty", file=file, notes=["export the model again"])
    looks = _looks_like(blob)
    model = ModelProto()
    try:
        model.ParseFromString(blob)
    except DecodeError as error:
        if looks is not None:
            raise _no_model(file, looks) from None
        notes = ["the file is cut short or damaged: compare its size with the original's"]
        raise QdqcError(
            f"this is not a whole ONNX model ({len(blob)} bytes do not parse as protobuf)",
            file=file,
            notes=notes,
        ) from error
    if not model.HasField("graph"):
        if looks is None and model.ir_version:
            raise QdqcError("the model has no graph", file=file, notes=["export the model again"])
        raise _no_model(file, looks or "something else")
    return model


def _no_model(file: str, looks: str) -> QdqcError:
    return QdqcError(
        f"this is no ONNX model; it looks like {looks}",
        file=file,
        notes=["give the path of an .onnx file"],
    )


def _read_bytes(path: Path) -> bytes:
    file = str(path)
    try:
        if path.is_dir():
            inside = sorted(p.name for p in path.iterdir() if p.suffix == ".onnx")
            notes = [f"it holds {', '.join(inside[:5])}"] if inside else []
            raise QdqcError(
                "this is a folder, not a model file",
                file=file,
                notes=[*notes, "give the path of an .onnx file"],
            )
        with path.open("rb") as source:
            size = os.fstat(source.fileno()).st_size
            if size >= _PROTOBUF_LIMIT:
                head = source.read(64)
                if (looks := _looks_like(head)) is not None:
                    raise _no_model(file, looks)
                raise QdqcError(
                    f"the file has {size} bytes, and a protobuf file ends at 2 GB",
                    file=file,
                    notes=["save it with external data: onnx.save(save_as_external_data=True)"],
                )
            if size >= _MAPPED_FROM:
                with contextlib.suppress(WireError):
                    return light_bytes(map_file(source.fileno(), path).data)
            return source.read()
    except FileNotFoundError:
        raise QdqcError(
            f"no such file{_near_file(path)}",
            file=file,
            notes=["give the path of an .onnx file"],
        ) from None
    except OSError as error:
        raise QdqcError(
            f"can't be read: {error.strerror or error}",
            file=file,
            notes=["check the path and its permissions"],
        ) from None


def _near_file(path: Path) -> str:
    try:
        known = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    except OSError:
        known = []
    return suggestion(path.name, known)


def _looks_like(blob: bytes) -> str | None:
    """What a file is by its first bytes; None when it may be an ONNX model."""
    head = blob[:4096]
    for beginning, name in _BEGINNINGS:
        if head.startswith(beginning):
            return name
    if head.startswith(b"PK\x03\x04"):
        names = blob[:65536]
        if b".npy" in names:
            return "an npz archive of arrays"
        if b"data.pkl" in names or b"/data/" in names:
            return "a PyTorch file (zip); export it with torch.onnx.export"
        return "a zip archive; unpack it first"
    text = head.lstrip()
    if text[:1] == b"<":
        return "HTML or XML: perhaps a download that ended on a web page"
    if text[:1] in (b"{", b"["):
        return "JSON"
    if head[4:8] == b"TFL3":
        return "a TensorFlow Lite model; convert it with tf2onnx"
    return "a text file" if _is_text(head) else None


def _is_text(head: bytes) -> bool:
    """Whether these are printable lines; an ONNX file has control bytes at once."""
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return False
        text = head[: error.start].decode("utf-8")
    return all(c.isprintable() or c in "\r\n\t" for c in text)
