"""Passes that run the module over data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qdqc.diagnostics import QdqcError
from qdqc.ir.graph import Graph
from qdqc.pipeline.pass_ import Pass, PassContext

if TYPE_CHECKING:
    from qdqc.calibration.masking import Masking
    from qdqc.data.fit import Sample

__all__ = ["DataPass", "TuningData"]


@dataclass(frozen=True)
class TuningData:
    """Samples that stream, and the mask whose padding does not count."""

    samples: Iterable[Sample]
    masking: Masking | None = None


class DataPass(Pass):
    """A pass that measures the module on data before it changes it.

    The samples are those that its caller runs the pipeline with, else those of ``dataset``, as
    run_calibration takes them: ``input_num`` of them, 0 for all. ``mask`` names an input that
    is 0 where there is padding.
    """

    dataset: str = ""
    input_num: int = 0
    mask: str = ""

    def data(self, graph: Graph, ctx: PassContext) -> TuningData:
        """What to measure on. Raises QdqcError where there is nothing, or the mask is none."""
        from qdqc.calibration.masking import masking_by
        from qdqc.data.dataset import open_dataset

        masking = masking_by(graph, self.mask) if self.mask else None
        if self.dataset:
            opened = open_dataset(Path(self.dataset), graph, input_num=self.input_num)
            return TuningData(opened, masking)
        if ctx.samples is None:
            raise QdqcError(
                f"pass '{self.name}' measures the module on data, and there are none",
                notes=[f'name them: {self.name}{{dataset="photos"}}'],
            )
        return TuningData(ctx.samples, masking)
