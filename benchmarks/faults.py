"""Faults at every call of file I/O of every command: what is left, and does the next run mend it?

    python benchmarks/faults.py                      all commands, every call
    python benchmarks/faults.py --only deploy --every 5

Each command runs in a folder where the outputs of another run of it stand already. Its N-th call
fails, or lacks memory, or the process is terminated or killed there, for every N. Behind it all
outputs are the old ones or all are the new ones; a kill may leave some of them out, the last one
first. Then the same command runs undisturbed: its outputs are those of a run that nothing
disturbed, and neither the folder nor the temporary one nor the cache holds anything else.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import re
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from fault_commands import COMMANDS, Command, inputs
from fault_points import KINDS, count_calls
from markdown import print_table

__all__ = ["Case", "main"]

_TIME = re.compile(rb"total time:[\d.]+")
_TOLD = re.compile("the files hold what is known so far|warning: can't read")
"""Other outputs that a command tells of; the run after it is judged as any."""
_TOKEN = re.compile(r"\b[0-9a-f]{8}\b")
"""What tells the temporary files of two runs apart."""
_WARM = (
    *("onnxruntime", "onnx.checker", "qdqc.ops", "qdqc.tools.command", "qdqc.inspection.measure"),
    *("qdqc.flow.transform", "qdqc.flow.deploy", "qdqc.flow.search", "qdqc.flow.inspect"),
)
"""What a copy of this process need not import once more."""
_OWN_MARK = "CACHEDIR.TAG"


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its exit code (below 0: the signal), what it wrote, and its calls."""

    code: int
    text: str
    calls: int


class Case:
    """A command in a folder of its own with its inputs; ``old`` and ``new`` are its outputs."""

    def __init__(self, command: Command, made: Path, folder: Path) -> None:
        self.command = command
        self._made = made
        self.folder = folder / command.name
        self.work, self.temporary = self.folder / "work", self.folder / "temporary"
        self.cache = self.folder / "cache"
        self._behind: dict[str, str] = {}
        self._reset({})
        self._expect(self.run(command.other))
        self.old = self._outputs()
        self._reset({})
        outcome = self.run(command.words, counted=True)
        self._expect(outcome)
        self.calls, self.new = outcome.calls, self._outputs()

    def tried(self, kind: str, number: int) -> str:
        """What is wrong behind a fault, or behind the run after it; empty where all is well."""
        self._reset(self.old)
        outcome = self.run(self.command.words, kind, number)
        wrong = self._wrong_outcome(kind, outcome)
        if not _TOLD.search(outcome.text):
            wrong = wrong or self._wrong_outputs(kind)
        if wrong:
            return f"{wrong}; {outcome.text[-400:]}"
        state = self._state()
        if state not in self._behind:
            self._behind[state] = self._wrong_again()
        return self._behind[state]

    def _wrong_again(self) -> str:
        """What is wrong behind an undisturbed run in the folder as it is now."""
        again = self.run(self.command.words)
        if again.code:
            return f"again: exit code {again.code}: {again.text[-400:]}"
        if self._outputs() != self.new:
            return f"again: other outputs: {self._differing(self.new)}"
        strays = [*self._strays(self.work, self.new), *self._strays(self.temporary, {})]
        return f"again: left behind: {strays}" if strays or not self._is_clean() else ""

    def run(
        self, words: Sequence[str], kind: str = "error", number: int = 0, *, counted: bool = False
    ) -> Outcome:
        """The command in a copy of this process, in whose folder it works."""
        log, told = self.folder / "log", self.folder / "calls"
        child = os.fork()
        if not child:
            code = 99
            with contextlib.suppress(BaseException):
                code = self._in_child(words, log, told, kind, number)
            os._exit(code)
        _, status = os.waitpid(child, 0)
        calls = int(told.read_text()) if counted else 0
        text = log.read_text(errors="replace")
        return Outcome(os.waitstatus_to_exitcode(status), text, calls)

    def _in_child(self, words: Sequence[str], log: Path, told: Path, kind: str, number: int) -> int:
        os.chdir(self.work)
        os.environ |= {"TMPDIR": str(self.temporary), "XDG_CACHE_HOME": str(self.cache)}
        tempfile.tempdir = None
        stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for standard in (1, 2):
            os.dup2(stream, standard)
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        try:
            main = self.command.main()
            point = count_calls([self.work, self.temporary, self.cache], kind, number)
            code = main(list(words))
            point.is_on = False
        except BaseException:
            traceback.print_exc()
            return 98
        told.write_text(str(point.count))
        return code

    def _state(self) -> str:
        """All that a run finds: it depends on nothing else, so one is tried for each state."""
        digest = hashlib.sha256()
        for path in sorted(self.folder.rglob("*")):
            if path.parent != self.folder and path.is_file():
                digest.update(_TOKEN.sub("-", str(path)).encode() + b"\0" + path.read_bytes())
            elif path.is_dir():
                digest.update(_TOKEN.sub("-", str(path)).encode())
        return digest.hexdigest()

    def _reset(self, outputs: dict[str, bytes]) -> None:
        """The folder as it was before the run, with these outputs in it."""
        for folder in (self.work, self.temporary, self.cache):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        for name in self.command.reads:
            shutil.copy(self._made / name, self.work / name)
        for name, content in outputs.items():
            (self.work / name).write_bytes(content)

    def _outputs(self) -> dict[str, bytes]:
        """What the command wrote, by name; its times are left out."""
        names = [n for n in self.command.writes if (self.work / n).exists()]
        return {n: _TIME.sub(b"", (self.work / n).read_bytes()) for n in names}

    def _expect(self, outcome: Outcome) -> None:
        if outcome.code or set(self._outputs()) != set(self.command.writes):
            raise RuntimeError(f"{self.command.name}: {outcome}")

    def _wrong_outcome(self, kind: str, outcome: Outcome) -> str:
        terminated = (128 + signal.SIGTERM, -signal.SIGTERM)  # the latter before it has begun
        codes = {"kill": (-signal.SIGKILL, 0), "terminate": (*terminated, 0)}
        if outcome.code not in codes.get(kind, (0, 1)):
            return f"exit code {outcome.code}"
        return "a traceback" if "Traceback" in outcome.text else ""

    def _wrong_outputs(self, kind: str) -> str:
        found = self._outputs()
        if kind != "kill":
            if found in (self.old, self.new):
                return ""
            return f"neither old nor new: {self._differing(self.old)} {self._differing(self.new)}"
        torn = [n for n, c in found.items() if c not in (self.old[n], self.new[n])]
        if torn:
            return f"half written: {torn}"
        last = self.command.writes[-1]
        mixed = last in found and found not in (self.old, self.new)
        return f"'{last}' beside others: {self._differing(self.new)}" if mixed else ""

    def _differing(self, wanted: dict[str, bytes]) -> list[str]:
        found = self._outputs()
        return [n for n in self.command.writes if found.get(n) != wanted.get(n)]

    def _strays(self, folder: Path, outputs: dict[str, bytes]) -> list[str]:
        known = {*self.command.reads, *outputs} if folder == self.work else set[str]()
        return [str(p.relative_to(folder)) for p in folder.rglob("*") if p.name not in known]

    def _is_clean(self) -> bool:
        """Whether the cache holds whole files of ours alone."""
        own = re.compile(r"[0-9a-f]{40}\.(statistics|journal)")
        files = [p.name for p in self.cache.rglob("*") if p.is_file()]
        return all(own.fullmatch(name) or name == _OWN_MARK for name in files)


def faults(case: Case, every: int, kinds: Sequence[str], show: Callable[[str], object]) -> Counter:
    """Faults of each kind at every so many calls; counts of trials and of failures by kind."""
    counts = Counter[str]()
    for kind in kinds:
        for number in range(1, case.calls + 1, every):
            wrong = case.tried(kind, number)
            counts[kind] += 1
            if wrong:
                counts[f"{kind} failed"] += 1
                show(f"{case.command.name}, {kind} at call {number}: {wrong}")
    return counts


def _cases(only: Sequence[str], folder: Path) -> Iterator[Case]:
    for name in _WARM:
        import_module(name)
    made = folder / "inputs"
    made.mkdir()
    inputs(made)
    for command in COMMANDS:
        if not only or command.name in only:
            yield Case(command, made, folder)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the counts by command and kind; exit code 1 where anything was wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [c.name for c in COMMANDS]
    parser.add_argument("--only", nargs="+", default=[], choices=names, help="(default: all)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="(default: 1)")
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS, help="(default: all)")
    args = parser.parse_args(argv)
    rows: list[list[object]] = []
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        for case in _cases(args.only, Path(name)):
            counts = faults(case, args.every, args.kinds, lambda text: print(text, flush=True))
            bad = {kind: counts[f"{kind} failed"] for kind in args.kinds}
            cells = [f"{counts[k]} ({bad[k]} wrong)" if bad[k] else counts[k] for k in args.kinds]
            rows.append([case.command.name, case.calls, *cells])
            print(*rows[-1], flush=True)
            failed += sum(bad.values())
    print_table("Faults at calls of file I/O", ["command", "calls", *args.kinds], rows)
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
