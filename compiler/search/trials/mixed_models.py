"""Modules as a calibration table would deploy them, with other modes of some nodes, in memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from qdqc.calibration.table import Table
from qdqc.ir.clone import clone
from qdqc.ir.graph import Module
from qdqc.pipeline.manager import PassManager
from qdqc.pipeline.pass_ import Pass
from qdqc.pipeline.spec import resolve
from qdqc.quant.deployment import INT8, Deployment, Stages
from qdqc.quant.qtable import Qtable

__all__ = ["MixedModels", "Others"]

Others: TypeAlias = Collection[str] | Mapping[str, str]
"""Nodes that are not INT8: their names, which take the ``fp_type``, or their modes by name."""


@dataclass(frozen=True, eq=False)
class MixedModels:
    """A float module and how it would be deployed.

    ``fp_type`` is the mode of nodes that do not become INT8. Numbers of tables are those that
    their files would have. Warnings are not repeated here.
    """

    module: Module
    deployment: Deployment = INT8
    fp_type: str = "F32"

    def lowered(self, table: Table, others: Others = ()) -> Module:
        """The deployed module, with other modes of some nodes. Raises QdqcError."""
        modes = self._modes(others)
        return self._run(self._stages(modes).pipeline, table, modes)

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

    def _modes(self, others: Others) -> Mapping[str, str]:
        if isinstance(others, Mapping):
            return others
        return dict.fromkeys(others, self.fp_type)

    def _stages(self, modes: Mapping[str, str] = {}) -> Stages:
        return self.deployment.stages(mixed=bool(modes))

    def _run(self, pipeline: str, table: Table, modes: Mapping[str, str] = {}) -> Module:
        out = clone(self.module)
        qtable = Qtable.of(modes) if modes else None
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
