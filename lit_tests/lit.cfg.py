"""How lit runs the text tests: its own shell, our commands, filecheck from the environment."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import lit.formats

config: Any = globals()["config"]

_BIN = Path(sys.executable).parent
_HERE = Path(__file__).resolve().parent
_COMMANDS = (
    "model_deploy",
    "model_runner",
    "model_transform",
    "npz_tool",
    "qir_opt",
    "run_calibration",
)

config.name = "qdqc"
config.test_format = lit.formats.ShTest(execute_external=False)
config.suffixes = [".qir", ".test"]
config.excludes = ["Inputs"]
config.test_source_root = str(_HERE)
config.test_exec_root = str(_HERE.parent / ".pytest_cache" / "lit")
config.environment["PYTHONDONTWRITEBYTECODE"] = "1"

# Whole words only: a file name such as qir_opt.qir is no command.
for _name in _COMMANDS:
    config.substitutions.append((rf"(?<![\w./-]){_name}(?![\w./-])", f'"{_BIN / _name}"'))
config.substitutions.append((r"(?<![\w./-])filecheck(?![\w./-])", f'"{_BIN / "filecheck"}"'))
config.substitutions.append(("%python", f'"{sys.executable}"'))
config.substitutions.append(("%examples", str(_HERE.parent / "examples")))

config.maxIndividualTestTime = 60  # seconds; needs psutil
