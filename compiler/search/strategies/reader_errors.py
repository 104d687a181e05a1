"""The error that a range makes in the outputs of the ops that read a value.

Each reader runs alone in onnxruntime on the float model's own values, with only the value in
question rounded. What other values lose, and what the weights lose, does not depend on its range.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from qdqc.calibration.table import Table
from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.excerpt import excerpt
from qdqc.ir.graph import Module
from qdqc.ir.types import Elem, Quant, Range
from qdqc.pipeline.manager import run
from qdqc.quant.arithmetic import activation_quant, rounded
from qdqc.quant.placement import decide
from qdqc.quant.targets.target import activations, target_named
from qdqc.runtime.sessions.session import Feeds, Runner

__all__ = ["BUDGET", "Reads", "local_errors", "quantized_reads", "reads_with_values"]

BUDGET = 256 << 20
"""Bytes of values that are held at a time."""

Errors = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Reads:
    """A value that is quantized, and the integer nodes that read it."""

    value: Value
    readers: tuple[Node[Any], ...]

    @property
    def needed(self) -> list[str]:
        """Names of what the readers read, constants left out."""
        every = (v for node in self.readers for v in node.present_operands)
        return list(dict.fromkeys(v.name for v in every if not isinstance(v, Constant)))


def quantized_reads(module: Module, table: Table, target: str = "ort-cpu") -> list[Reads]:
    """The values that the target would quantize by a table, in graph order. Raises QdqcError."""
    planning = "import-calibration,propagate-ranges,assign-precision"
    planned = run(module, planning, table=table.as_written())
    readers_of: dict[Value, list[Node[Any]]] = {}
    for node, decision in decide(planned.graph, target_named(target)).items():
        for index in activations(node, decision.traits) if decision.integer else ():
            value = node.operands[index]
            if value is not None and not isinstance(value, Constant) and value.name in table.rows:
                readers = readers_of.setdefault(value, [])
                if node not in readers:
                    readers.append(node)
    order = {name: place for place, name in enumerate(table.rows)}
    reads = [Reads(value, tuple(readers)) for value, readers in readers_of.items()]
    return sorted(reads, key=lambda r: order[r.value.name])


def reads_with_values(
    module: Module, reads: Sequence[Reads], samples: Sequence[Feeds], budget: int = BUDGET
) -> Iterator[tuple[Reads, list[dict[str, npt.NDArray[Any]]]]]:
    """Each value with what its readers read, sample by sample, in the float module.

    The module runs once more for each group of values that fits into the budget; a value that
    alone is larger makes a group of its own.
    """
    names = list(dict.fromkeys(n for r in reads for n in r.needed))
    if not names or not samples:
        return
    sizes = {n: a.nbytes for n, a in Runner(module, names).run(samples[0]).items()}
    for group in _groups(reads, sizes, budget // len(samples)):
        names = list(dict.fromkeys(n for r in group for n in r.needed))
        runner = Runner(module, names)
        values = [{n: a for n, a in runner.run(s).items() if n in names} for s in samples]
        for read in group:
            yield read, values


def _groups(reads: Sequence[Reads], sizes: Mapping[str, int], limit: int) -> Iterator[list[Reads]]:
    group: list[Reads] = []
    needed: set[str] = set()
    for read in reads:
        wanted = needed | set(read.needed)
        if group and sum(sizes[n] for n in wanted) > limit:
            yield group
            group, wanted = [], set(read.needed)
        group.append(read)
        needed = wanted
    if group:
        yield group


def local_errors(
    read: Reads,
    ranges: Sequence[Range],
    values: Sequence[Mapping[str, npt.NDArray[Any]]],
    *,
    target: str = "ort-cpu",
    symmetric: bool = False,
) -> Errors:
    """``mean over samples of |ref - out|_2 / |ref|_1`` of each reader: [readers, ranges].

    ``ref`` is what the reader gives for the float values, ``out`` with the value rounded to 8 bits
    by the range. Ranges with the same scale and zero point are run once. (The cost is that of
    TPU-MLIR's tuner, which rounds the other operands and the weights as well.)
    """
    elem = target_named(target).activation
    clamp = read.value.producer.op.clamp if read.value.producer else None
    quants = [activation_quant(r, elem, symmetric=symmetric, clamp=clamp) for r in ranges]
    distinct = {_key(q): q for q in quants}
    column = {key: place for place, key in enumerate(distinct)}
    errors = np.array(
        [
            _errors_of(node, read.value.name, elem, list(distinct.values()), values)
            for node in read.readers
        ]
    )
    return errors[:, [column[_key(q)] for q in quants]]


def _key(quant: Quant) -> tuple[float, int]:
    return float(quant.scale), int(quant.zero_point)


def _errors_of(
    node: Node[Any],
    name: str,
    elem: Elem,
    quants: Sequence[Quant],
    values: Sequence[Mapping[str, npt.NDArray[Any]]],
) -> Errors:
    """The mean error of one reader for each scale and zero point: [quants]."""
    alone = excerpt([node], [node.result.name])
    runner = Runner(alone)
    total = np.zeros(len(quants))
    for sample in values:
        feeds = {v.name: sample[v.name] for v in alone.graph.inputs}
        exact = _output(runner, feeds)
        size = float(np.abs(exact).sum(dtype=np.float64)) or 1.0
        for place, quant in enumerate(quants):
            out = _output(runner, {**feeds, name: rounded(feeds[name], quant, elem)})
            total[place] += float(np.linalg.norm((out - exact).ravel().astype(np.float64))) / size
    return total / max(1, len(values))


def _output(runner: Runner, feeds: Feeds) -> npt.NDArray[Any]:
    return runner.run(feeds)[runner.outputs[0]]
