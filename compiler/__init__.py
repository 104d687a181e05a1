"""qdqc: compiles a float ONNX model into a deployable INT8 (QDQ ONNX) one.

Everything here is loaded when it is first used: importing the package alone is quick, and
neither onnx nor onnxruntime is loaded before a model is.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from qdqc.diagnostics import Diagnostic, QdqcError
    from qdqc.flow.deploy import Quantized, quantize
    from qdqc.flow.prove import prove
    from qdqc.flow.search import SensitiveLayers, search_layers
    from qdqc.ir.core import Constant, Node, Value
    from qdqc.ir.data import Data
    from qdqc.ir.graph import Graph, Module
    from qdqc.ir.op import Op
    from qdqc.ir.types import Elem, Quant, Range, TensorType
    from qdqc.onnx_io.exporter import export_onnx
    from qdqc.onnx_io.importer import import_onnx
    from qdqc.onnx_io.saver import save_onnx
    from qdqc.pipeline.manager import run
    from qdqc.pipeline.pass_ import Pass, PassContext
    from qdqc.rewrite.pattern import PatternPass, Rewriter, rewrites
    from qdqc.text.qir_files import load, save
    from qdqc.text.strings import from_text, to_text

__all__ = [
    "Constant",
    "Data",
    "Diagnostic",
    "Elem",
    "Graph",
    "Module",
    "Node",
    "Op",
    "Pass",
    "PassContext",
    "PatternPass",
    "QdqcError",
    "Quant",
    "Quantized",
    "Range",
    "Rewriter",
    "SensitiveLayers",
    "TensorType",
    "Value",
    "export_onnx",
    "from_text",
    "import_onnx",
    "load",
    "prove",
    "quantize",
    "rewrites",
    "run",
    "save",
    "save_onnx",
    "search_layers",
    "to_text",
]

_HOMES = {
    "Constant": "qdqc.ir.core",
    "Data": "qdqc.ir.data",
    "Diagnostic": "qdqc.diagnostics",
    "Elem": "qdqc.ir.types",
    "Graph": "qdqc.ir.graph",
    "Module": "qdqc.ir.graph",
    "Node": "qdqc.ir.core",
    "Op": "qdqc.ir.op",
    "Pass": "qdqc.pipeline.pass_",
    "PassContext": "qdqc.pipeline.pass_",
    "PatternPass": "qdqc.rewrite.pattern",
    "QdqcError": "qdqc.diagnostics",
    "Quant": "qdqc.ir.types",
    "Quantized": "qdqc.flow.deploy",
    "Range": "qdqc.ir.types",
    "Rewriter": "qdqc.rewrite.pattern",
    "SensitiveLayers": "qdqc.flow.search",
    "TensorType": "qdqc.ir.types",
    "Value": "qdqc.ir.core",
    "export_onnx": "qdqc.onnx_io.exporter",
    "from_text": "qdqc.text.strings",
    "import_onnx": "qdqc.onnx_io.importer",
    "load": "qdqc.text.qir_files",
    "prove": "qdqc.flow.prove",
    "quantize": "qdqc.flow.deploy",
    "rewrites": "qdqc.rewrite.pattern",
    "run": "qdqc.pipeline.manager",
    "save": "qdqc.text.qir_files",
    "save_onnx": "qdqc.onnx_io.saver",
    "search_layers": "qdqc.flow.search",
    "to_text": "qdqc.text.strings",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from qdqc.versions import own_version

        return own_version()
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'qdqc' has no attribute '{name}'")
    found = getattr(importlib.import_module(home), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
