"""Modules as a calibration table would deploy them, in memory, and how far they are from float."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compiler.calibration.table import Table, save_table
from compiler.ir.graph import Module
from compiler.pipeline.manager import run
from compiler.quant.deployment import deployment_pipeline
from compiler.runtime.compare import cosine, sqnr
from compiler.runtime.session import Feeds, Runner

__all__ = ["Fidelity", "deployed", "fidelity"]


@dataclass(frozen=True)
class Fidelity:
    """How near outputs are to the float model's: means over samples and outputs, SQNR in dB."""

    cos: float
    sqnr: float


def deployed(
    module: Module, table: Table, *, target: str = "ort-cpu", symmetric: bool = False
) -> Module:
    """The lowered INT8 module, as ``model_deploy`` makes it of the table's file.

    The table passes through its text, so that its numbers are those of the file. Raises QdqcError.
    """
    with tempfile.TemporaryDirectory(prefix="qdqc-") as folder:
        file = Path(folder) / "table"
        save_table(table, file)
        return run(module, deployment_pipeline(str(file), target=target, symmetric=symmetric))


def fidelity(
    module: Module, samples: Iterable[Feeds], reference: Sequence[Mapping[str, npt.NDArray[Any]]]
) -> Fidelity:
    """Run the module on the samples and compare its float outputs with those of the reference."""
    runner = Runner(module)
    cos: list[float] = []
    noise: list[float] = []
    for feeds, expected in zip(samples, reference, strict=True):
        found = runner.run(feeds)
        floats = [n for n, exact in expected.items() if exact.dtype.kind == "f"]
        cos += [cosine(found[n], expected[n]) for n in floats]
        noise += [sqnr(found[n], expected[n]) for n in floats]
    return Fidelity(float(np.mean(cos)), float(np.mean(noise)))
