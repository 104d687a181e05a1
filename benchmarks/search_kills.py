"""A search killed with SIGKILL at random moments and started again: are its files the same?"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path

from assets import ROOT
from markdown import print_table

__all__ = ["print_kills"]

_TAKEN = re.compile(r"(\d+) findings of an earlier run")
_KILLS = 5


def print_kills(line: list[str], folder: Path, kills: int = _KILLS) -> bool:
    """Kill the search of a command line, with 1 and 2 workers; whether all files are the same.

    The line lacks its output, and its number of workers.
    """
    whole = _Run(line, folder / "whole", ["--workers=1", "--no_cache"])
    start = time.monotonic()
    whole.finish()
    seconds = time.monotonic() - start
    rows: list[list[object]] = []
    for workers in (1, 2):
        given = [f"--workers={workers}", "--cache", str(folder / f"cache{workers}")]
        again = _Run(line, folder / f"killed{workers}", given)
        draw = random.Random(workers)
        found = [again.killed(draw.uniform(0.3, 0.9) * seconds) for _ in range(kills)]
        found.append(again.finish())
        taken = " ".join(found)
        rows.append([f"{workers} workers, whole run", kills, taken, again.same_as(whole)])
    single = _Run(line, folder / "single", ["--workers=2", "--no_cache"])
    dead = single.with_a_worker_killed(0.5 * seconds)
    rows.append(["2 workers, one of them", dead, "", single.same_as(whole)])
    head = ["what is killed", "kills", "findings taken up at each start", "files"]
    print_table("Killed and started again", head, rows)
    return all(row[-1] == "the same" for row in rows)


class _Run:
    """A command line with its own folder of outputs."""

    def __init__(self, line: list[str], folder: Path, given: list[str]) -> None:
        folder.mkdir()
        self.folder = folder
        self._words = [*line, *given, "-o", str(folder / "n.qtable")]

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(self._words, cwd=ROOT, stderr=subprocess.PIPE, text=True)

    def finish(self) -> str:
        with self._start() as process:
            _, err = process.communicate()
        return _taken(err)

    def killed(self, after: float) -> str:
        with self._start() as process:
            time.sleep(after)
            process.kill()
            _, err = process.communicate()
        return _taken(err)

    def with_a_worker_killed(self, after: float) -> int:
        """Kill the first worker that is seen after some seconds; how many were."""
        with self._start() as process:
            time.sleep(after)
            path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            until, killed = time.monotonic() + 60, 0
            while not killed and process.poll() is None and time.monotonic() < until:
                for child in path.read_text().split()[:1]:
                    os.kill(int(child), signal.SIGKILL)
                    killed += 1
            process.communicate()
        return killed

    def same_as(self, other: _Run) -> str:
        names = ("n.qtable", "n_new_cali_table")
        paths = [(self.folder / n, other.folder / n) for n in names]
        there = all(a.exists() and b.exists() for a, b in paths)
        same = there and all(a.read_text() == b.read_text() for a, b in paths)
        return "the same" if same else "another"


def _taken(err: str) -> str:
    found = _TAKEN.findall(err)
    return found[0] if found else "-"
