"""What the audit predicts for naive QDQ models under releases of onnxruntime, and what they do.

    python benchmarks/ort_versions.py [--versions 1.20.1,1.21.1,1.23.2,newest] [--folder DIR]

Each release is installed into a virtual environment of its own, in a folder that is thrown away
unless ``--folder`` names one. Every naive model is run there, with optimisations on, and so is what
this project makes of the same float original. ``integer``: an integer kernel ran and the numbers
are right; ``wrong``: it ran and they are not; ``float``: no integer kernel; ``fails``: it raised.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from markdown import print_table
from naive_qdq import TRAPS

__all__ = ["main", "observed", "predicted"]

VERSIONS = "1.20.1,1.21.1,1.23.2,newest"
OBSERVE = Path(__file__).with_name("observe_kernels.py")


def main(argv: Sequence[str] | None = None) -> int:
    """Install, run, and print predictions beside what was seen; 1 where they differ."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--versions", default=VERSIONS, help=f"releases (default: {VERSIONS})")
    parser.add_argument("--folder", help="where environments are kept (default: a throw-away one)")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        models = Path(scratch) / "models"
        write_models(models)
        home = Path(args.folder or scratch)
        releases = [release(home, v, models) for v in args.versions.split(",")]
    wrong = 0
    rows: list[list[object]] = []
    for name in TRAPS:
        row: list[object] = [name]
        for version, found in releases:
            guess, seen = predicted(name, version), found["naive", name]
            wrong += guess != seen
            row.append(seen if guess == seen else f"{seen} (predicted {guess})")
        row.append(", ".join(sorted({found["ours", name] for _, found in releases})))
        rows.append(row)
    head = ["written naively", *(f"{v[0]}.{v[1]}" for v, _ in releases), "as this project lays it"]
    print_table("What runs in integers, by release", head, rows)
    print(f"\npredictions that were wrong: {wrong} of {len(rows) * len(releases)}")
    return 1 if wrong else 0


def write_models(folder: Path) -> None:
    """Each trap's naive model and this project's, with an input and the float result."""
    import onnxruntime as ort

    import qdqc

    for index, (name, make) in enumerate(TRAPS.items()):
        trap, place = make(), folder / str(index)
        place.mkdir(parents=True)
        ours = qdqc.quantize(trap.original, [{"x": trap.x}], method="max").model
        onnx.save(trap.naive, place / "naive.onnx")
        onnx.save(ours, place / "ours.onnx")
        exact = ort.InferenceSession(trap.original.SerializeToString()).run(None, {"x": trap.x})[0]
        np.savez(place / "data.npz", x=trap.x, y=exact)
        (place / "name").write_text(name, encoding="utf-8")


def release(home: Path, version: str, models: Path) -> tuple[tuple[int, int], dict[Any, str]]:
    """Install a release where it is not yet, and run all models under it."""
    place = home / version
    python = place / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        wanted = "onnxruntime" if version == "newest" else f"onnxruntime=={version}"
        install = [python, "-m", "pip", "install", "-q", wanted, "onnx", "numpy<2.4"]
        subprocess.run(install, check=True, stdout=subprocess.DEVNULL)
    return observed(python, models)


def observed(python: str | Path, models: Path) -> tuple[tuple[int, int], dict[Any, str]]:
    """The release that an interpreter has, and how each model ran: by (whose, name)."""
    done = subprocess.run(
        [python, OBSERVE, models], check=True, capture_output=True, text=True, timeout=600
    )
    told = json.loads(done.stdout)
    major, minor = told["version"].split(".")[:2]
    rows = {(r["whose"], r["name"]): r["outcome"] for r in told["rows"]}
    return (int(major), int(minor)), rows


def predicted(name: str, version: tuple[int, int]) -> str:
    """What the rules and their history say of a trap's naive model under a release."""
    import qdqc
    from qdqc.quant.targets.ort_history import outcome
    from qdqc.quant.targets.rules import broken_rules
    from qdqc.quant.targets.target import target_named

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "naive.onnx"
        onnx.save(TRAPS[name]().naive, path)
        typed = qdqc.run(qdqc.import_onnx(path), "@transform,canonicalize")
    broken = list(broken_rules(typed.graph, target_named("ort-cpu")))
    found = [outcome(b, version) for b in broken]
    return max(found, key=("integer", "float", "wrong", "fails").index, default="integer")


if __name__ == "__main__":
    raise SystemExit(main())
