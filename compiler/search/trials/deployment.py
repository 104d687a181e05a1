"""Modules as a calibration table would deploy them, in memory, and how far they are from float."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qdqc.calibration.table import Table, save_table
from qdqc.files import write_whole
from qdqc.ir.clone import clone
from qdqc.ir.graph import Module
from qdqc.pipeline.manager import PassManager
from qdqc.pipeline.pass_ import Pass
from qdqc.pipeline.spec import resolve
from qdqc.quant.deployment import deployment_pipeline
from qdqc.quant.qtable_text import print_qtable
from qdqc.runtime.comparison.compare import cosine, sqnr
from qdqc.runtime.sessions.session import Feeds, Runner

__all__ = ["Deployment", "Fidelity", "fidelity"]


@dataclass(frozen=True, eq=False)
class Deployment:
    """A float module and how ``model_deploy`` would deploy it.

    ``fp_type`` is the mode of nodes that do not become INT8. Tables and qtables pass through
    their texts, so that their numbers are those of the files. Warnings are not repeated here.
    """

    module: Module
    target: str = "ort-cpu"
    symmetric: bool = False
    fp_type: str = "F32"

    def lowered(self, table: Table, floats: Collection[str] = ()) -> Module:
        """The deployed module, with the nodes of these names left float. Raises QdqcError."""
        return self._run(table, floats)

    def planned(self, table: Table) -> Module:
        """The module with ranges and modes; its numbers are those of the float module."""
        return self._run(table, (), ("correct-bias", "quantize"))

    def corrected(self, table: Table) -> Module:
        """The planned module with the biases that integer nodes get, still in float."""
        return self._run(table, (), ("quantize",))

    def quantize_pass(self) -> Pass:
        """The pass of the deployment that makes types integer."""
        return next(p for p in self._passes(None, None) if p.name == "quantize")

    def _passes(self, table: Path | None, qtable: Path | None) -> list[Pass]:
        from qdqc.pipeline.discovery import load_passes, pipelines

        load_passes()
        pipeline = deployment_pipeline(
            None if table is None else str(table),
            target=self.target,
            symmetric=self.symmetric,
            qtable=None if qtable is None else str(qtable),
        )
        return resolve(pipeline, pipelines())

    def _run(self, table: Table, floats: Collection[str], before: Collection[str] = ()) -> Module:
        """Run the pipeline, as far as the first pass of these names."""
        out = clone(self.module)
        with tempfile.TemporaryDirectory(prefix="qdqc-") as folder:
            file, qtable = Path(folder) / "table", Path(folder) / "qtable"
            save_table(table, file)
            write_whole(qtable, print_qtable(dict.fromkeys(floats, self.fp_type)))
            passes = self._passes(file, qtable if floats else None)
            stop = next((i for i, p in enumerate(passes) if p.name in before), len(passes))
            PassManager(passes[:stop], verify_each=False, warn=lambda _: None).run(out)
        return out


@dataclass(frozen=True)
class Fidelity:
    """How near outputs are to the float model's: means over samples and outputs, SQNR in dB."""

    cos: float
    sqnr: float


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
