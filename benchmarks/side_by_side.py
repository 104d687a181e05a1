"""What the INT8 benchmarks print alike: a float model, the project's and the peer's."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from markdown import print_table
from ort_quantizer import Sample, node_counts, optimised, session

from qdqc.runtime.timing.latency import interleave, ratio, spread

__all__ = ["FLOAT", "OWN", "PEER", "print_kernels", "print_latency"]

FLOAT, OWN, PEER = "float", "qdqc mse", "onnxruntime MinMax"
_WARMUP = 10


def print_kernels(models: Mapping[str, Path], folder: Path) -> None:
    """Size of each model, and its kernels after onnxruntime's extended level."""
    rows: list[list[object]] = []
    kernels: list[str] = []
    for name, path in models.items():
        counts = node_counts(optimised(path, folder / "optimised.onnx", "extended"))
        rows.append([name, f"{path.stat().st_size / 1e6:.3f}", counts.total()])
        kernels.append(f"{name}: " + ", ".join(f"{op} {n}" for op, n in counts.most_common()))
    print_table("What onnxruntime runs (extended level)", ["model", "MB", "nodes"], rows)
    print("", *kernels, sep="\n")


def print_latency(
    models: Mapping[str, Path],
    feeds: Sample,
    inputs: str,
    rounds: int,
    *,
    repeats: int = 1,
    peer: str = PEER,
) -> None:
    """Latency of the models on one thread, interleaved in this process.

    ``inputs`` says in the title what they are given; ``peer`` is what they are held against.
    """
    runs = {n: partial(session(p, threads=1).run, None, feeds) for n, p in models.items()}
    times = interleave(runs, rounds, repeats=repeats, warmup=_WARMUP)
    rows = [
        [
            name,
            spread(found).text(scale=1e3, digits=3),
            ratio(times[FLOAT], found).text(),
            ratio(found, times[peer]).text(digits=3),
        ]
        for name, found in times.items()
    ]
    head = ["model", "ms", "speed-up over float", f"latency over {peer}"]
    title = f"Latency, one thread, {inputs}, {rounds} rounds: median [quartiles]"
    print_table(title, head, rows)
