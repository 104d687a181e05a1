"""Modules as a calibration table would deploy them, with some nodes left float, in memory."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from qdqc.calibration.table import Table
from qdqc.ir.clone import clone
from qdqc.ir.graph import Module
from qdqc.pipeline.manager import PassManager
from qdqc.pipeline.pass_ import Pass
from qdqc.pipeline.spec import resolve
from qdqc.quant.deployment import INT8, Deployment, Stages
from qdqc.quant.qtable import Qtable

__all__ = ["MixedModels"]


@dataclass(frozen=True, eq=False)
class MixedModels:
    """A float module and how it would be deployed.

    ``fp_type`` is the mode of nodes that do not become INT8. Numbers of tables are those that
    their files would have. Warnings are not repeated here.
    """

    module: Module
    deployment: Deployment = INT8
    fp_type: str = "F32"

    def lowered(self, table: Table, floats: Collection[str] = ()) -> Module:
        """The deployed module, with the nodes of these names left float. Raises QdqcError."""
        return self._run(self._stages(floats).pipeline, table, floats)

    def planned(self, table: Table) -> Module:
        """The module with ranges and modes; its numbers are those of the float module."""
        return self._run(self._stages().planning, table)

    def corrected(self, table: Table) -> Module:
        """The planned module with the biases that integer nodes get, still in float."""
        stages = self._stages()
        return self._run(f"{stages.planning},{stages.correction}", table)

    def quantize_pass(self) -> Pass:
        """The pass of the deployment that makes types integer."""
        (pass_,) = _passes(self.deployment.quantize_pass)
        return pass_

    def _stages(self, floats: Collection[str] = ()) -> Stages:
        return self.deployment.stages(mixed=bool(floats))

    def _run(self, pipeline: str, table: Table, floats: Collection[str] = ()) -> Module:
        out = clone(self.module)
        qtable = Qtable.of(dict.fromkeys(floats, self.fp_type)) if floats else None
        PassManager(
            _passes(pipeline),
            verify_each=False,
            warn=lambda _: None,
            table=table.as_written(),
            qtable=qtable,
        ).run(out)
        return out


def _passes(pipeline: str) -> list[Pass]:
    from qdqc.pipeline.discovery import load_passes, pipelines

    load_passes()
    return resolve(pipeline, pipelines())
