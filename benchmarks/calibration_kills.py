"""Calibration killed with SIGKILL at random moments: the same table, and what was done twice.

    QDQC_ASSETS=... python benchmarks/calibration_kills.py

Runs of run_calibration over the photos with EfficientNet-Lite0 are killed ten times and then left
to end, by threads and by two workers. In a last run one worker alone is killed.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from assets import ROOT, assets_folder
from markdown import print_table
from ort_quantizer import fixed_model
from photos import PREPROCESS_OPTIONS
from qdqc_commands import argv as command_line
from qdqc_commands import transform

__all__ = ["main"]

_FOUND = re.compile(r"(\d+) of \d+ samples were found in the cache")


def main(argv: Sequence[str] | None = None) -> int:
    """Kill, go on, and compare the tables; exit code 1 where one differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=10, help="(default: 10)")
    args = parser.parse_args(argv)
    assets = assets_folder("models/effnet_lite0.onnx")
    if assets is None or assets_folder("imagenet_dev/calib") is None:
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        net = fixed_model(assets / "models" / "effnet_lite0.onnx", folder / "net.onnx", "batch", 1)
        qir = transform(net, folder, *PREPROCESS_OPTIONS)
        data = assets / "imagenet_dev" / "calib"
        line = command_line("run_calibration", qir, "--dataset", data)
        rows: list[list[str]] = []
        whole, seconds = "", 0.0
        for given in ("--workers=1", "--workers=2"):
            start = time.monotonic()
            _run([*line, given, "--no_cache", "-o", str(folder / "whole")])
            seconds = time.monotonic() - start
            whole = whole or (folder / "whole").read_text()
            rows.append(_killed(line, folder, given, seconds, args.kills, whole))
        rows.append(_worker_killed(line, folder, seconds, whole))
    head = ["run", "kills", "samples found at each start", "table"]
    print_table("Killed and started again", head, rows)
    return int(any(row[-1] != "the same" for row in rows))


def _killed(
    line: list[str], folder: Path, given: str, seconds: float, kills: int, whole: str
) -> list[str]:
    """Kills at moments of the time that a whole run takes; ``-`` is where nothing was told yet."""
    draw = random.Random(0)
    table = folder / f"killed{given[-1]}"
    words = [*line, given, "--cache", str(folder / f"cache{given[-1]}"), "-o", str(table)]
    found: list[str] = []
    for _ in range(kills):
        with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
            time.sleep(draw.uniform(0.4, 0.9) * seconds)
            process.kill()
            _, err = process.communicate()
        found += _FOUND.findall(err) or ["-"]
    found += _FOUND.findall(_run(words)) or ["-"]
    return [given, str(kills), " ".join(found), _same(table, whole)]


def _worker_killed(line: list[str], folder: Path, seconds: float, whole: str) -> list[str]:
    table = folder / "worker"
    words = [*line, "--workers=2", "--no_cache", "-o", str(table)]
    with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(0.6 * seconds)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for child in children[:1]:
            os.kill(int(child), signal.SIGKILL)
        process.communicate()
    return ["--workers=2, one worker", str(len(children[:1])), "", _same(table, whole)]


def _same(table: Path, whole: str) -> str:
    return "the same" if table.exists() and table.read_text() == whole else "another"


def _run(words: list[str]) -> str:
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stderr


if __name__ == "__main__":
    raise SystemExit(main())
