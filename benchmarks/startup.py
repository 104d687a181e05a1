"""How long a command takes to start, beside importing numpy alone.

    python benchmarks/startup.py [--rounds 20]

Whole processes, interleaved: what a person waits for before a command does anything. Listing the
passes loads every pass and every op; 0.35 s is the aim on an idle machine. It needs no assets.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from markdown import print_table

from qdqc.runtime.timing.latency import interleave, ratio, spread

__all__ = ["main"]

NUMPY = "python -c 'import numpy'"
COMMANDS = {
    NUMPY: [sys.executable, "-c", "import numpy"],
    "qir_opt --list-passes": ["qir_opt", "--list-passes"],
    "model_deploy --help": ["model_deploy", "--help"],
}


def main(argv: Sequence[str] | None = None) -> int:
    """Time the processes and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20, help="rounds of timing (default: 20)")
    args = parser.parse_args(argv)
    runs: dict[str, Callable[[], object]] = {n: partial(_run, c) for n, c in COMMANDS.items()}
    seconds = interleave(runs, args.rounds)
    rows = [
        [name, spread(found).text(digits=3), ratio(found, seconds[NUMPY]).text()]
        for name, found in seconds.items()
    ]
    print_table("Start of a process", ["command", "seconds", "x numpy"], rows)
    return 0


def _run(command: list[str]) -> None:
    program = command[0]
    if program != sys.executable:
        program = str(Path(sys.executable).with_name(program))
    subprocess.run([program, *command[1:]], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    raise SystemExit(main())
