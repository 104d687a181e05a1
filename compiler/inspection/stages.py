"""Models as inspection looks at them: any file that the project reads, with typed precision."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qdqc.diagnostics import QdqcError
from qdqc.ir.graph import Module
from qdqc.onnx_io.importer import import_onnx
from qdqc.pipeline.manager import run
from qdqc.text.qir_files import load

_FUSED = "canonicalize,fuse-activation,"
"""ONNX has no node for a product with its activation, so an exported module has two."""

__all__ = ["load_stage", "made_by", "quantized_stage", "reference_stage"]


def load_stage(path: str | Path) -> Module:
    """The module of a .qir or an .onnx file, as it stands there. Raises QdqcError."""
    source = Path(path)
    if source.suffix == ".onnx":
        return import_onnx(source)
    if source.suffix != ".qir":
        raise QdqcError(
            "the model is neither a .qir nor an .onnx file",
            file=str(source),
            notes=["model_transform makes a .qir, model_deploy an .onnx"],
        )
    return load(source, verify=True)


def reference_stage(path: str | Path) -> Module:
    """The float module: a .qir as it is, an .onnx simplified as ``model_transform`` does."""
    module = load_stage(path)
    return run(module, "@transform") if Path(path).suffix == ".onnx" else module


def quantized_stage(path: str | Path) -> Module:
    """The module whose types say what is integer: what ``lower-to-qdq`` wrote out is read back.

    Its header is that of the file.
    """
    spelt_out = Path(path).suffix == ".onnx"
    given = load_stage(path)
    module = run(given, f"{_FUSED}import-qdq" if spelt_out else "import-qdq")
    module.header = dict(given.header)
    return module


def made_by(path: str | Path, module: Module) -> Mapping[str, Any]:
    """The header that says how the module of a file was made: that of its .qir.

    An .onnx does not say; the .qir that ``model_deploy`` wrote beside it does. Empty where
    nobody does. Raises QdqcError for a .qir that can't be read.
    """
    text = Path(path).with_suffix(".qir")
    if not text.exists():
        return {}
    return (module if text == Path(path) else load(text)).header
