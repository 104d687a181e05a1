"""How lit runs the text tests: its own shell, our commands, filecheck from the environment."""

from __future__ import annotations

import atexit
import shutil
import sys
import tempfile
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

# Commands keep nothing in the cache of who runs the tests, and find nothing of an earlier run.
_CACHE = tempfile.mkdtemp(prefix="qdqc-lit-")
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)
config.environment["XDG_CACHE_HOME"] = _CACHE

# Whole words only: a file name such as qir_opt.qir is no command.
for _name in _COMMANDS:
    config.substitutions.append((rf"(?<![\w./-]){_name}(?![\w./-])", f'"{_BIN / _name}"'))
config.substitutions.append((r"(?<![\w./-])filecheck(?![\w./-])", f'"{_BIN / "filecheck"}"'))
config.substitutions.append(("%python", f'"{sys.executable}"'))
config.substitutions.append(("%examples", str(_HERE.parent / "examples")))

config.maxIndividualTestTime = 300  # seconds; needs psutil
