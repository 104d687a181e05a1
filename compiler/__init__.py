"""qdqc: compiles a float ONNX model into a deployable INT8 (QDQ ONNX) one.

Everything here is loaded when it is first used: importing the package alone is quick, and
neither onnx nor onnxruntime is loaded before a model is.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

# onnxruntime reads it when it loads: else it writes a device's id and a database of telemetry into
# the user's cache. Who wants that sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    __version__: str
    from qdqc.calibration.table import Table, load_table, save_table
    from qdqc.data.preprocess import Preprocess
    from qdqc.diagnostics import Diagnostic, QdqcError
    from qdqc.flow.calibrate import calibrate
    from qdqc.flow.deploy import Deployed, deploy
    from qdqc.flow.listener import Listener
    from qdqc.flow.prove import prove
    from qdqc.flow.quantized import Quantized, quantize
    from qdqc.flow.report import Report
    from qdqc.flow.search import SensitiveLayers, search_layers
    from qdqc.flow.transform import transform
    from qdqc.ir.clone import clone
    from qdqc.ir.core import Constant, Node, Value
    from qdqc.ir.data import Data
    from qdqc.ir.graph import Graph, Module
    from qdqc.ir.op import Op
    from qdqc.ir.types import Elem, Quant, Range, TensorType
    from qdqc.ir.verify import verify
    from qdqc.onnx_io.exporter import export_onnx
    from qdqc.onnx_io.importer import import_onnx
    from qdqc.onnx_io.saver import save_onnx
    from qdqc.pipeline.manager import run
    from qdqc.pipeline.pass_ import Pass, PassContext
    from qdqc.quant.deployment import Deployment
    from qdqc.quant.qtable import Qtable, load_qtable
    from qdqc.quant.targets.target import Target
    from qdqc.rewrite.pattern import PatternPass, Rewriter, rewrites
    from qdqc.search.strategies.strategy import Strategy
    from qdqc.text.qir_files import load, save
    from qdqc.text.strings import from_text, to_text

__all__ = [
    "Constant",
    "Data",
    "Deployed",
    "Deployment",
    "Diagnostic",
    "Elem",
    "Graph",
    "Listener",
    "Module",
    "Node",
    "Op",
    "Pass",
    "PassContext",
    "PatternPass",
    "Preprocess",
    "QdqcError",
    "Qtable",
    "Quant",
    "Quantized",
    "Range",
    "Report",
    "Rewriter",
    "SensitiveLayers",
    "Strategy",
    "Table",
    "Target",
    "TensorType",
    "Value",
    "calibrate",
    "clone",
    "deploy",
    "export_onnx",
    "from_text",
    "import_onnx",
    "load",
    "load_qtable",
    "load_table",
    "prove",
    "quantize",
    "rewrites",
    "run",
    "save",
    "save_onnx",
    "save_table",
    "search_layers",
    "to_text",
    "transform",
    "verify",
]

_HOMES = {
    "Constant": "qdqc.ir.core",
    "Data": "qdqc.ir.data",
    "Deployed": "qdqc.flow.deploy",
    "Deployment": "qdqc.quant.deployment",
    "Diagnostic": "qdqc.diagnostics",
    "Elem": "qdqc.ir.types",
    "Graph": "qdqc.ir.graph",
    "Listener": "qdqc.flow.listener",
    "Module": "qdqc.ir.graph",
    "Node": "qdqc.ir.core",
    "Op": "qdqc.ir.op",
    "Pass": "qdqc.pipeline.pass_",
    "PassContext": "qdqc.pipeline.pass_",
    "PatternPass": "qdqc.rewrite.pattern",
    "Preprocess": "qdqc.data.preprocess",
    "QdqcError": "qdqc.diagnostics",
    "Qtable": "qdqc.quant.qtable",
    "Quant": "qdqc.ir.types",
    "Quantized": "qdqc.flow.quantized",
    "Range": "qdqc.ir.types",
    "Report": "qdqc.flow.report",
    "Rewriter": "qdqc.rewrite.pattern",
    "SensitiveLayers": "qdqc.flow.search",
    "Strategy": "qdqc.search.strategies.strategy",
    "Table": "qdqc.calibration.table",
    "Target": "qdqc.quant.targets.target",
    "TensorType": "qdqc.ir.types",
    "Value": "qdqc.ir.core",
    "calibrate": "qdqc.flow.calibrate",
    "clone": "qdqc.ir.clone",
    "deploy": "qdqc.flow.deploy",
    "export_onnx": "qdqc.onnx_io.exporter",
    "from_text": "qdqc.text.strings",
    "import_onnx": "qdqc.onnx_io.importer",
    "load": "qdqc.text.qir_files",
    "load_qtable": "qdqc.quant.qtable",
    "load_table": "qdqc.calibration.table",
    "prove": "qdqc.flow.prove",
    "quantize": "qdqc.flow.quantized",
    "rewrites": "qdqc.rewrite.pattern",
    "run": "qdqc.pipeline.manager",
    "save": "qdqc.text.qir_files",
    "save_onnx": "qdqc.onnx_io.saver",
    "save_table": "qdqc.calibration.table",
    "search_layers": "qdqc.flow.search",
    "to_text": "qdqc.text.strings",
    "transform": "qdqc.flow.transform",
    "verify": "qdqc.ir.verify",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from qdqc.versions import own_version

        return own_version()
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'qdqc' has no attribute '{name}'")
    thing = getattr(importlib.import_module(home), name)
    globals()[name] = thing
    return thing


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
