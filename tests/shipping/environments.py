"""Environments outside the checkout, where what users get is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {"compiler": "qdqc", "passes": "qdqc/passes", "tools": "qdqc/tools"}


@dataclass(frozen=True)
class Environment:
    """A virtual environment outside the checkout."""

    folder: Path

    @property
    def programs(self) -> Path:
        return self.folder / ("Scripts" if os.name == "nt" else "bin")

    def run(self, *line: str | Path, at: Path) -> subprocess.CompletedProcess[str]:
        """A program of the environment, run in the folder ``at``."""
        name, *arguments = line
        env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        return subprocess.run(
            [self.programs / name, *arguments], cwd=at, env=env, capture_output=True, text=True
        )

    def output(self, *line: str | Path, at: Path) -> str:
        """What a program prints on stdout; it must succeed."""
        done = self.run(*line, at=at)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    def install(self, *options: str | Path) -> subprocess.CompletedProcess[str]:
        """Pip of the developing environment, at work on this one."""
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
        python = self.programs / "python"
        line = [*pip, "--python", python, "install", "--quiet", *options]
        return subprocess.run(line, cwd=self.folder, capture_output=True, text=True)


def new_environment(python: str | Path, folder: Path) -> Environment:
    """An empty environment for an interpreter."""
    line = [python, "-m", "venv", "--without-pip", folder]
    subprocess.run(line, check=True, capture_output=True)
    return Environment(folder)
