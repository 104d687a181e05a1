"""The wheel as users get it, built once for each process of the test run."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from environments import ROOT, SOURCES, Environment, new_environment


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the wheel is built from, without anything that earlier builds left in the checkout."""
    copy = tmp_path_factory.mktemp("sources")
    for folder in SOURCES:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / file, copy)
    return copy


@pytest.fixture(scope="session")
def wheel(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the sources."""
    made = tmp_path_factory.mktemp("wheel")
    options: Sequence[str | Path] = ("--no-deps", "--no-build-isolation", "--wheel-dir", made)
    line = [sys.executable, "-m", "pip", "wheel", "--quiet", *options, sources]
    done = subprocess.run(line, cwd=made, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (file,) = made.glob("*.whl")
    return file


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The wheel in a fresh environment, with the dependencies of the developing one.

    A .pth file lends them; those inside the lent folder, such as an editable qdqc's, are not read.
    """
    environment = new_environment(sys.executable, tmp_path_factory.mktemp("installed"))
    done = environment.install("--no-deps", "--no-index", wheel)
    assert done.returncode == 0, done.stderr
    (own,) = environment.folder.glob("[Ll]ib/**/site-packages")
    (own / "lent.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return environment
