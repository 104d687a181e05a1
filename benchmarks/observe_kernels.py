"""How models of a folder run under the onnxruntime that is installed; JSON on stdout.

    python observe_kernels.py FOLDER

For environments that hold onnxruntime, onnx and numpy alone: ``ort_versions.py`` runs it there.
Every model runs in a process of its own, for an old release may crash.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

INTEGER = ("QLinear", "QGemm", "MatMulInteger", "DynamicQuantize", "ConvInteger")
FLOAT = ("Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "ConvTranspose")
CLOSE = 0.05
"""Largest error of right integers, in parts of the result's largest number."""


def outcome(model: Path, data: Path) -> str:
    """integer, float, wrong or fails, of one model."""
    with tempfile.TemporaryDirectory() as folder, np.load(data) as held:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        try:
            session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
            found = session.run(None, {"x": held["x"]})[0]
        except Exception:
            return "fails"
        ops = [n.op_type for n in onnx.load(options.optimized_model_filepath).graph.node]
        if not any(op.startswith(INTEGER) for op in ops) or any(op in FLOAT for op in ops):
            return "float"
        error = np.abs(found - held["y"]).max() / np.abs(held["y"]).max()
        return "integer" if error < CLOSE else "wrong"


def main(folder: Path) -> None:
    """Print how each model of each trap runs."""
    rows = []
    for place in sorted(folder.iterdir()):
        for whose in ("naive", "ours"):
            command = [sys.executable, __file__, place / f"{whose}.onnx", place / "data.npz"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            told = done.stdout.strip() if done.returncode == 0 else "fails"
            name = (place / "name").read_text(encoding="utf-8")
            rows.append({"whose": whose, "name": name, "outcome": told})
    print(json.dumps({"version": ort.__version__, "rows": rows}))


if __name__ == "__main__":
    if len(sys.argv) > 2:
        print(outcome(Path(sys.argv[1]), Path(sys.argv[2])))
    else:
        main(Path(sys.argv[1]))
