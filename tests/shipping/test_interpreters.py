"""qdqc on each Python that it is stated for, and on the oldest versions that it may be given.

An interpreter that is not on this machine, and a registry that can't be reached, skip a test.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from environments import ROOT, Environment, new_environment

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
STATED = "Programming Language :: Python :: 3."
PYTHONS = sorted(
    int(c.removeprefix(STATED)) for c in PROJECT["classifiers"] if c.startswith(STATED)
)
DIGITS = ROOT / "examples" / "digits"
UNREACHABLE = ("NewConnectionError", "ConnectTimeoutError", "ProxyError", "ReadTimeoutError")


def interpreter(minor: int) -> str:
    """A Python 3.``minor`` that runs, from the path or from pyenv; skips without one."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    kept = versions.glob(f"3.{minor}.*/bin/python")
    code = "import ensurepip, sys, venv; print(sys.version_info[1])"  # Debian's may lack the two
    for python in (sys.executable, shutil.which(f"python3.{minor}"), *kept):
        if python is None:
            continue
        done = subprocess.run([python, "-c", code], capture_output=True, text=True)
        if done.stdout == f"{minor}\n":
            return str(python)
    pytest.skip(f"no Python 3.{minor} with venv on this machine")


def install(environment: Environment, *wanted: str | Path) -> None:
    """Install from the registry, in wheels; skips where it can't be reached."""
    done = environment.install("--only-binary", ":all:", "--retries", "1", *wanted)
    if any(error in done.stderr for error in UNREACHABLE):
        pytest.skip("the registry can't be reached")
    assert done.returncode == 0, done.stderr


def smoke(environment: Environment, folder: Path) -> str:
    """What the smoke script says; then one command runs."""
    said = environment.output("python", "-W", "error", SMOKE, DIGITS, folder, at=folder)
    line = ("--model_def", DIGITS / "digits.onnx", "-o", "digits.qir")
    environment.output("model_transform", *line, at=folder)
    return said


SMOKE = Path(__file__).with_name("smoke.py")


@pytest.mark.parametrize("minor", [m for m in PYTHONS if m != sys.version_info[1]])
def test_another_python(minor: int, wheel: Path, tmp_path: Path) -> None:
    environment = new_environment(interpreter(minor), tmp_path / "environment")
    install(environment, wheel)
    assert f"on Python 3.{minor}." in smoke(environment, tmp_path)


def test_the_oldest_dependencies(wheel: Path, tmp_path: Path) -> None:
    """The stated minima are not only resolved, they work."""
    environment = new_environment(interpreter(PYTHONS[0]), tmp_path / "environment")
    install(environment, wheel, *(d.replace(">=", "==") for d in PROJECT["dependencies"]))
    smoke(environment, tmp_path)


def test_the_stated_pythons_start_at_the_least_that_is_required() -> None:
    assert PROJECT["requires-python"] == f">=3.{PYTHONS[0]}"
