"""Runs a command in a folder; prints what it told, its exit code, and the files it left."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


folder = Path(sys.argv[1])
before = contents(folder)
done = subprocess.run(
    sys.argv[2:],
    cwd=folder,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    check=False,
)
after = contents(folder)
print(done.stdout.rstrip())
print(f"exit code {done.returncode}")
print("files:", ", ".join(sorted(after.keys() - before.keys())) or "none new", end="")
print(", but some changed" if any(after.get(n) != b for n, b in before.items()) else "")
