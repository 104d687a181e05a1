"""``python tests/typed_tree.py FOLDER``: the sources as they are installed, as links.

Type checkers and editors know no mapping of folders to packages, so what is ``qdqc`` to Python
has to lie somewhere under that name. FOLDER is replaced.
"""

from __future__ import annotations

import shutil
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def lay(folder: Path) -> None:
    """A tree of folders below ``folder`` whose files are links to the sources."""
    shutil.rmtree(folder, ignore_errors=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    for package, source in project["tool"]["setuptools"]["package-dir"].items():
        for file in sorted((ROOT / source).rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                link = folder.joinpath(*package.split("."), file.relative_to(ROOT / source))
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(file)


if __name__ == "__main__":
    lay(Path(sys.argv[1]))
