"""Runs the project's commands as their user does: as processes, reading their reports."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assets import ROOT

__all__ = ["CommandError", "Deployed", "argv", "calibrate", "deploy", "run", "transform"]


class CommandError(RuntimeError):
    """A command ended with another exit code than 0; the text is its stderr."""


@dataclass(frozen=True)
class Deployed:
    """A deployed model and the report of ``model_deploy``."""

    model: Path
    report: dict[str, Any]

    def products(self) -> str:
        """Conv, MatMul, Gemm and ConvTranspose in integers, of all, by the audit."""
        audit = self.report["audit"]
        return f"{audit['integer']} of {audit['integer'] + audit['float']}"

    def integer_by_op(self) -> dict[str, int]:
        """Nodes that run in integers, counted by op."""
        counts: dict[str, int] = {}
        for row in self.report["audit"]["ops"]:
            if row["runs"] == "integer":
                counts[row["op"]] = counts.get(row["op"], 0) + 1
        return counts


def argv(command: str, *options: object) -> list[str]:
    """The command line: what its console script does, under the interpreter that runs this."""
    code = f"from qdqc.tools.{command} import main; raise SystemExit(main())"
    return [sys.executable, "-c", code, *(str(o) for o in options)]


def run(command: str, report: Path, *options: object) -> dict[str, Any]:
    """Run a command to its end; what it reported. Raises CommandError."""
    words = argv(command, *options, "--report", report, "-q")
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CommandError(f"{command} ended with exit code {done.returncode}\n{done.stderr}")
    return json.loads(report.read_text(encoding="utf-8"))


def transform(model: Path, folder: Path, *options: object) -> Path:
    """``model_transform`` of an ONNX file into ``folder``; the .qir file."""
    out = folder / f"{model.stem}.qir"
    given = ("--model_name", model.stem, "--model_def", model, "--mlir", out)
    run("model_transform", folder / "transform.json", *given, *options)
    return out


def calibrate(qir: Path, dataset: Path, method: str = "mse", *options: object) -> Path:
    """``run_calibration`` over a whole data set, with further options; the table."""
    table = qir.with_suffix(".cali_table")
    given = (qir, "--dataset", dataset, "--cali_method", method, "-o", table, "--no_cache")
    run("run_calibration", qir.with_name("calibration.json"), *given, *options)
    return table


def deploy(qir: Path, table: Path, *options: str) -> Deployed:
    """``model_deploy`` in INT8 for onnxruntime on a CPU, with further options."""
    out = qir.with_name("_".join((qir.stem, "int8", *(o.strip("-") for o in options))) + ".onnx")
    given = ("--mlir", qir, "--quantize", "INT8", "--calibration_table", table, "--model", out)
    return Deployed(out, run("model_deploy", out.with_suffix(".json"), *given, *options))
