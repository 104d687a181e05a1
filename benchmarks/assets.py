"""Where the models and data of the benchmarks lie: the folder in ``QDQC_ASSETS``."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["DIGITS", "ROOT", "VARIABLE", "assets_folder"]

VARIABLE = "QDQC_ASSETS"
ROOT = Path(__file__).resolve().parent.parent
DIGITS = ROOT / "examples" / "digits"
"""The embedded example, which needs no assets."""


def assets_folder(wants: str) -> Path | None:
    """The folder of the assets; None, said on stdout, when it is not set or lacks ``wants``.

    ``wants`` is the path inside the folder that the caller is going to read.
    """
    given = os.environ.get(VARIABLE)
    if not given:
        print(f"skipped {wants}: set {VARIABLE} to the folder that holds it")
        return None
    folder = Path(given)
    if not (folder / wants).exists():
        print(f"skipped {wants}: {VARIABLE} is set, but its folder does not hold it")
        return None
    return folder
