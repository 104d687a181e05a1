"""Instruments that count: seconds by pass, and what each pass did."""

from __future__ import annotations

from qdqc.diagnostics import joined
from qdqc.ir.graph import Module
from qdqc.pipeline.instrument import Instrument, Report, Write

__all__ = ["PassStatistics", "TimePasses"]


class TimePasses(Instrument):
    """Prints a table of seconds by pass, the slowest first, with the verifier's share."""

    def __init__(self, write: Write) -> None:
        self.write = write

    def end(self, module: Module, report: Report) -> None:
        total = report.seconds
        rows = [(f"{r.name} (pass {i})", r.seconds) for i, r in enumerate(report.runs, 1)]
        verify = sum(run.verify_seconds for run in report.runs)
        if verify:
            rows.append(("(verifier)", verify))
        rows.sort(key=lambda row: -row[1])
        lines = ["seconds   percent  pass"]
        for name, seconds in [*rows, ("(total)", total)]:
            percent = 100 * seconds / total if total else 0.0
            lines.append(f"{seconds:7.4f}  {percent:7.1f}%  {name}")
        self.write(joined(lines) + "\n")


class PassStatistics(Instrument):
    """Prints the changes of each pass, with the counters that the pass kept."""

    def __init__(self, write: Write) -> None:
        self.write = write

    def end(self, module: Module, report: Report) -> None:
        lines = ["changes  pass"]
        for index, run in enumerate(report.runs, 1):
            lines.append(f"{run.changes:7}  {run.name} (pass {index})")
            counted = sorted(run.statistics.items(), key=lambda item: (-item[1], item[0]))
            lines += [f"{count:11}  {name}" for name, count in counted]
        self.write(joined(lines) + "\n")
