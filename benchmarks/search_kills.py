"""A search killed with SIGKILL at random moments and started again: are its files the same?"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

from assets import ROOT
from markdown import print_table

__all__ = ["print_kills"]

_KILLS = 5
_WITHIN = 0.05
"""Seconds within which a kill follows a finding: it lands amid the next one."""


def print_kills(line: list[str], folder: Path, kills: int = _KILLS) -> bool:
    """Kill the search of a command line, with 1 and 2 workers; whether all files are the same.

    The line lacks its output, and its number of workers. Each kill lands behind a number of
    findings that is drawn from those that are left.
    """
    whole = _Run(line, folder / "whole", 1)
    whole.finish()
    total = whole.findings()
    rows: list[list[object]] = []
    for workers in (1, 2):
        again = _Run(line, folder / f"killed{workers}", workers)
        draw = random.Random(workers)
        landed: list[int] = []
        for left in range(kills, 0, -1):
            known = again.findings()
            again.kill_behind(known + draw.randint(1, max(1, (total - known) // left)))
            landed.append(again.findings())
        again.finish()
        shown = " ".join(map(str, landed))
        rows.append([f"{workers} workers, whole run", len(landed), shown, again.same_as(whole)])
    single = _Run(line, folder / "single", 2)
    dead = single.finish_without_a_worker(total // 2)
    rows.append(["2 workers, one of them", dead, total // 2, single.same_as(whole)])
    head = ["what is killed", "kills", f"behind so many of {total} findings", "files"]
    print_table("Killed and started again", head, rows)
    return all(row[-1] == "the same" for row in rows)


class _Run:
    """A command line with its own folder of outputs, and its own journal."""

    def __init__(self, line: list[str], folder: Path, workers: int) -> None:
        folder.mkdir()
        self.folder = folder
        cache = ["--cache", str(folder / "cache")]
        self._words = [*line, f"--workers={workers}", *cache, "-q", "-o", str(folder / "n.qtable")]

    def findings(self) -> int:
        """The findings in the journal so far."""
        files = (self.folder / "cache").rglob("*.journal")
        return sum(bool(line) for f in files for line in f.read_bytes().splitlines())

    def finish(self) -> None:
        with self._start() as process:
            process.wait()

    def kill_behind(self, findings: int) -> None:
        """SIGKILL it a moment after so many findings."""
        with self._start() as process:
            self._wait(process, findings)
            time.sleep(random.Random(findings).uniform(0, _WITHIN))
            process.kill()

    def finish_without_a_worker(self, findings: int) -> int:
        """Kill the first worker that is seen after so many findings; how many were."""
        with self._start() as process:
            self._wait(process, findings)
            path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            killed = 0
            while not killed and process.poll() is None:
                for child in path.read_text().split()[:1]:
                    os.kill(int(child), signal.SIGKILL)
                    killed += 1
            process.wait()
        return killed

    def same_as(self, other: _Run) -> str:
        names = ("n.qtable", "n_new_cali_table")
        paths = [(self.folder / n, other.folder / n) for n in names]
        there = all(a.exists() and b.exists() for a, b in paths)
        same = there and all(a.read_text() == b.read_text() for a, b in paths)
        return "the same" if same else "another"

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._words, cwd=ROOT)

    def _wait(self, process: subprocess.Popen[bytes], findings: int) -> None:
        while process.poll() is None and self.findings() < findings:
            time.sleep(0.005)
