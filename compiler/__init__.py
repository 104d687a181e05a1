"""qdqc: compiles a float ONNX model into a deployable INT8 (QDQ ONNX) one.

Everything here is loaded when it is first used: importing the package alone is quick, and
neither onnx nor onnxruntime is loaded before a model is.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compiler.api import from_text, to_text
    from compiler.deploy import Quantized, quantize
    from compiler.diagnostics import Diagnostic, QdqcError
    from compiler.ir.core import Constant, Node, Value
    from compiler.ir.data import Data
    from compiler.ir.graph import Graph, Module
    from compiler.ir.op import Op
    from compiler.ir.types import Elem, Quant, Range, TensorType
    from compiler.onnx_io.exporter import export_onnx
    from compiler.onnx_io.importer import import_onnx
    from compiler.onnx_io.saver import save_onnx
    from compiler.pipeline.manager import run
    from compiler.pipeline.pass_ import Pass, PassContext
    from compiler.proof import prove
    from compiler.rewrite.pattern import PatternPass, Rewriter, rewrites
    from compiler.search.whole import SensitiveLayers, search_layers
    from compiler.text.files import load, save

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
    "Constant": "compiler.ir.core",
    "Data": "compiler.ir.data",
    "Diagnostic": "compiler.diagnostics",
    "Elem": "compiler.ir.types",
    "Graph": "compiler.ir.graph",
    "Module": "compiler.ir.graph",
    "Node": "compiler.ir.core",
    "Op": "compiler.ir.op",
    "Pass": "compiler.pipeline.pass_",
    "PassContext": "compiler.pipeline.pass_",
    "PatternPass": "compiler.rewrite.pattern",
    "QdqcError": "compiler.diagnostics",
    "Quant": "compiler.ir.types",
    "Quantized": "compiler.deploy",
    "Range": "compiler.ir.types",
    "Rewriter": "compiler.rewrite.pattern",
    "SensitiveLayers": "compiler.search.whole",
    "TensorType": "compiler.ir.types",
    "Value": "compiler.ir.core",
    "export_onnx": "compiler.onnx_io.exporter",
    "from_text": "compiler.api",
    "import_onnx": "compiler.onnx_io.importer",
    "load": "compiler.text.files",
    "prove": "compiler.proof",
    "quantize": "compiler.deploy",
    "rewrites": "compiler.rewrite.pattern",
    "run": "compiler.pipeline.manager",
    "save": "compiler.text.files",
    "save_onnx": "compiler.onnx_io.saver",
    "search_layers": "compiler.search.whole",
    "to_text": "compiler.api",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'compiler' has no attribute '{name}'")
    found = getattr(importlib.import_module(home), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
