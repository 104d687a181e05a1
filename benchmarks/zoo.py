"""Real networks of many hands: AUTO, INT8 and DYN8 beside onnxruntime's static and dynamic.

    QDQC_ASSETS=... python benchmarks/zoo.py [v4_det minilm ...] [--rounds 30] [--report zoo.json]

Each model is made in a process of its own from the same samples. SQNR, of the worst output, and
the score of the task are of other samples. Speed is that of the float file's over the model's time
on one thread in processor time, all of them interleaved in one process.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from markdown import print_table
from ort_quantizer import session
from process_cost import ChildError, measure
from zoo_cases import Case, cases
from zoo_nets import Outputs
from zoo_ways import WAYS

from qdqc.runtime.timing.latency import Seconds, interleave, ratio

__all__ = ["main"]

_LASTS = 0.02
"""Seconds that a measurement lasts at least: runs of small models are timed together."""
_NEAR, _LEAST = 30.0, 15.0
_WHOLE = 200.0
"""Decibels from which on nothing was quantized."""
_COSTS = ("seconds", "peak")


@dataclass
class Row:
    """What became of a network in one way; ``fault`` in words where nothing did."""

    network: str
    way: str
    sqnr: float = float("nan")
    score: float = float("nan")
    speed: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    megabytes: float = float("nan")
    seconds: float = float("nan")
    peak: float = float("nan")
    chosen: str = ""
    fault: str = ""

    def cells(self) -> list[object]:
        if self.fault:
            return [self.network, self.way, *["-"] * 6, self.fault]
        speed = f"{self.speed:.2f} [{self.low:.2f}, {self.high:.2f}]"
        figures = [f"{self.sqnr:.1f}", f"{self.score:.3f}", speed, f"{self.megabytes:.2f}"]
        costs = [f"{self.seconds:.0f}", f"{self.peak:.0f}"]
        return [self.network, self.way, *figures, *costs, self.chosen]


def main(argv: Sequence[str] | None = None) -> int:
    """Print a row for each network and way, and what the rows amount to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", help="names of networks (default: all)")
    parser.add_argument("--rounds", type=int, default=30, help="rounds of timing (default: 30)")
    parser.add_argument("--report", type=Path, help="the rows as JSON, written")
    args = parser.parse_args(argv)
    every = cases()
    rows: list[Row] = []
    for name in args.networks or every:
        with tempfile.TemporaryDirectory() as folder:
            rows += _rows(every[name], Path(folder), args.rounds)
    head = ["network", "way", "dB", "score", "speed", "MB", "s", "peak MB", "AUTO took"]
    print_table("Networks of many hands", head, [row.cells() for row in rows])
    _conclude(rows)
    if args.report:
        args.report.write_text(json.dumps([asdict(row) for row in rows]), encoding="utf-8")
    return 0


def _rows(case: Case, folder: Path, rounds: int) -> list[Row]:
    """The rows of a network, the float model's first."""
    source = folder / "float.onnx"
    shutil.copyfile(case.model(folder), source)
    rows = {way: _made(case, way, folder) for way in WAYS}
    samples = [{**sample, **case.bind} for sample in case.test()]
    nets = {"float": session(source, threads=1)}
    exact = _outputs(nets["float"], samples)
    for way, row in rows.items():
        if row.fault:
            continue
        try:
            nets[way] = session(folder / f"{way}.onnx", threads=1)
            outputs = _outputs(nets[way], samples)
            row.sqnr, row.score = _sqnr(outputs, exact), case.score(outputs, exact)
        except Exception as error:  # a peer's file may not run at all
            nets.pop(way, None)
            row.fault = str(error).splitlines()[0][:60]
    times = _times(nets, samples[0], rounds)
    for way in list(nets)[1:]:
        speed = ratio(times["float"], times[way])
        rows[way].speed, rows[way].low, rows[way].high = speed.median, speed.low, speed.high
    first = Row(case.name, f"float ({case.task})", float("inf"), 1.0, 1.0, 1.0, 1.0)
    first.megabytes, first.seconds, first.peak = source.stat().st_size / 1e6, 0.0, 0.0
    for row in (first, *rows.values()):
        print(*row.cells(), sep="  ", file=sys.stderr, flush=True)
    return [first, *rows.values()]


def _made(case: Case, way: str, folder: Path) -> Row:
    """Quantize in a process of its own."""
    script = str(Path(__file__).with_name("zoo_ways.py"))
    try:
        cost = measure([sys.executable, script, case.name, way, str(folder)])
    except ChildError as error:
        last = str(error).strip().splitlines()[-1]
        return Row(case.name, way, fault=last[:60])
    told = json.loads(cost.stdout.strip().splitlines()[-1])
    size = (folder / f"{way}.onnx").stat().st_size / 1e6
    row = Row(case.name, way, megabytes=size, seconds=told["seconds"])
    row.peak, row.chosen = cost.peak_bytes / 1e6, told.get("chosen", "")
    return row


def _outputs(net: Any, samples: Sequence[Mapping[str, Any]]) -> Outputs:
    inputs = [i.name for i in net.get_inputs()]
    names = [o.name for o in net.get_outputs()]
    runs = (net.run(None, {n: sample[n] for n in inputs}) for sample in samples)
    return [dict(zip(names, values, strict=True)) for values in runs]


def _sqnr(outputs: Outputs, exact: Outputs) -> float:
    """Of all samples together, that of the worst output, in dB."""
    worst = float("inf")
    for name in exact[0]:
        pairs = [
            (np.asarray(a[name], np.float64), b[name]) for a, b in zip(outputs, exact, strict=True)
        ]
        noise = sum(float(np.square(a - b).sum()) for a, b in pairs)
        signal = sum(float(np.square(np.asarray(b, np.float64)).sum()) for _, b in pairs)
        if noise > 0:
            worst = min(worst, 10 * float(np.log10(max(signal, 1e-300) / noise)))
    return worst


def _times(
    nets: Mapping[str, Any], sample: Mapping[str, Any], rounds: int
) -> Mapping[str, Seconds]:
    inputs = {n: {i.name: sample[i.name] for i in net.get_inputs()} for n, net in nets.items()}
    runs = {name: partial(net.run, None, inputs[name]) for name, net in nets.items()}
    runs["float"]()
    start = time.process_time()
    runs["float"]()
    repeats = max(1, int(_LASTS / max(1e-6, time.process_time() - start)))
    return interleave(runs, rounds, repeats=repeats, primed=True, clock=time.process_time)


def _conclude(rows: Sequence[Row]) -> None:
    """What AUTO reaches beside the goals, network by network and in all."""
    by_net: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_net.setdefault(row.network, {})[row.way] = row
    speeds: list[float] = []
    for name, (source, auto, *others) in ((n, list(w.values())) for n, w in by_net.items()):
        missed = [what for what, met in _goals(source, auto, others).items() if not met]
        print(f"{name}: {'all met' if not missed else 'missed: ' + ', '.join(missed)}")
        speeds.append(auto.speed)
    mean = float(np.exp(np.mean(np.log([s for s in speeds if s == s]))))
    seconds, peak = (max(getattr(r, k) for r in rows if r.way == "AUTO") for k in _COSTS)
    print(f"geometric mean of AUTO's speed over float: {mean:.2f}")
    print(f"at most {seconds:.0f} s of processor time, {peak:.0f} MB of private memory")


def _goals(source: Row, auto: Row, others: Sequence[Row]) -> dict[str, bool]:
    """What is asked of AUTO beside the other ways, and whether it is met."""
    known = [row for row in others if not row.fault]
    peers = [row for row in known if row.way.startswith("ort") and row.sqnr < _WHOLE]
    near = max((row.sqnr for row in peers), default=0.0)
    rivals = [row.speed for row in peers if row.sqnr >= min(auto.sqnr, _NEAR)]
    best = max((row.score for row in known), default=0.0)
    return {
        "near": auto.sqnr >= _NEAR or auto.sqnr >= max(_LEAST, near - 1),
        "task": auto.score >= min(1.0, best) - 1e-9,
        "no slower than float": auto.high >= 1.0,
        "no slower than a peer as near": auto.high >= max(rivals, default=0.0),
        "no larger than float": auto.megabytes <= source.megabytes + 1e-3,
    }


if __name__ == "__main__":
    raise SystemExit(main())
