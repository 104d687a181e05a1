"""Holds a transcript against what its commands really tell.

A transcript has lines ``$ command`` with what follows on stdout and stderr, then the exit code
and the files that are new; ``{{...}}`` in it is a regular expression. Exit code 1 where they
differ, with the difference.
"""

from __future__ import annotations

import difflib
import re
import shlex
import subprocess
import sys
from pathlib import Path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def told(folder: Path, command: str) -> list[str]:
    """What a command tells, line by line; it runs as its console script does."""
    before = contents(folder)
    name, *words = shlex.split(command)
    code = f"from qdqc.tools.{name} import main; raise SystemExit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    after = contents(folder)
    new = ", ".join(sorted(after.keys() - before.keys())) or "none"
    changed = ", but others changed" if any(after.get(n) != b for n, b in before.items()) else ""
    return [*done.stdout.splitlines(), f"exit code {done.returncode}, new files: {new}{changed}"]


def matches(wanted: str, found: str) -> bool:
    parts = re.split(r"\{\{(.*?)\}\}", wanted)
    pattern = "".join(p if i % 2 else re.escape(p) for i, p in enumerate(parts))
    return re.fullmatch(pattern, found) is not None


def main(folder: Path, transcript: Path) -> int:
    failed = 0
    for entry in re.split(r"(?m)^\$ ", transcript.read_text())[1:]:
        command, *wanted = entry.rstrip().splitlines()
        found = told(folder, command)
        if len(found) != len(wanted) or not all(map(matches, wanted, found)):
            failed += 1
            difference = difflib.unified_diff(wanted, found, "transcript", "told", lineterm="")
            sys.stdout.write("\n".join([f"$ {command}", *difference, ""]))
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
