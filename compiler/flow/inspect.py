"""What makes a quantized model wrong: both models run, measured, and the causes named."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from qdqc.calibration.table import Table, load_table
from qdqc.data.dataset import Dataset
from qdqc.diagnostics import QdqcError
from qdqc.flow.listener import SILENT, Listener
from qdqc.inspection.causes import Cause, causes
from qdqc.inspection.difference import Difference, difference
from qdqc.inspection.inputs import Summary
from qdqc.inspection.measure import Measured, measure
from qdqc.inspection.sketch import Sketches
from qdqc.inspection.stages import made_by
from qdqc.ir.graph import Module
from qdqc.quant.lowering import has_quantized_activations
from qdqc.quant.qtable import Qtable, load_qtable
from qdqc.report.page.gather import Sources, gather
from qdqc.report.page.payload import COMPARED, Inspection
from qdqc.runtime.sessions.session import Feeds

__all__ = ["Inspected", "Making", "inspect", "making_of"]

DigestedT = TypeVar("DigestedT", Table, Qtable)


@dataclass(frozen=True)
class Making:
    """How a quantized module was made: its pipeline, and the tables that its passes read."""

    pipeline: str = ""
    table: Table | None = None
    qtable: Qtable | None = None


@dataclass(frozen=True)
class Inspected:
    """A quantized module beside the float one: what was measured, and what makes it wrong.

    ``sample`` is the first one; ``sketches`` hold what a page draws of values, where one was
    asked for.
    """

    reference: Module
    quantized: Module
    measured: Measured
    causes: Sequence[Cause]
    sample: Feeds
    sketches: Sketches | None = None

    def page(
        self,
        making: Making = Making(),
        searched: Mapping[str, Any] | None = None,
        shown: tuple[Difference, tuple[str, str]] | None = None,
    ) -> Inspection:
        """All that a page shows. Raises QdqcError where onnxruntime refuses a module.

        ``searched`` is what searches found, as their reports have it; ``shown`` a difference and
        what it is between, by default that of both modules.
        """
        if self.sketches is None:
            raise ValueError("a page needs an inspection with sketches")
        apart, names = shown or (difference(self.reference, self.quantized), COMPARED)
        sources = Sources(
            self.reference,
            self.quantized,
            self.sample,
            making.pipeline,
            making.table,
            making.qtable,
            searched or {},
            apart,
            names,
        )
        return gather(sources, self.measured, self.causes, self.sketches)


def inspect(
    reference: Module,
    quantized: Module,
    data: Dataset,
    *,
    input_num: int = 0,
    tolerance: tuple[float, float] = (0.99, 0.9),
    known: Summary | None = None,
    sketched: bool = False,
    listener: Listener = SILENT,
) -> Inspected:
    """Run a float module and a quantized one over ``input_num`` samples (0 for all).

    Runs part where a value falls below ``tolerance``, cosine and euclidean similarity. ``known``
    are spreads of values of a run that is right. ``sketched`` keeps what a page draws. Raises
    QdqcError where the models stand in each other's place, or share no value.
    """
    if has_quantized_activations(reference) and not has_quantized_activations(quantized):
        raise QdqcError(
            "the model of `reference` is quantized, and that of `quantized` is not",
            notes=["give them the other way round"],
        )
    number = min(len(data), input_num or len(data))
    samples = listener.track("inspect", islice(data, input_num or None), number)
    sketches = Sketches(sum(1 for _ in reference.walk()), number) if sketched else None
    measured = measure(quantized, reference, samples, tolerance, sketches)
    if not measured.figures:
        raise QdqcError(
            "the models share no value, so there is nothing to compare",
            notes=["give a `quantized` that was made from `reference`"],
        )
    reasons = causes(measured, quantized, reference, known)
    return Inspected(reference, quantized, measured, reasons, next(iter(data)), sketches)


def making_of(
    path: str | Path,
    module: Module,
    table: Table | None = None,
    qtable: Qtable | None = None,
) -> Making:
    """How the module of a file was made, as the header of its .qir says.

    The header keeps digests of the calibration table and of the qtable: where these are not
    given, files beside the model are looked at. Raises QdqcError for a .qir that can't be read.
    """
    header = made_by(path, module)
    folder = Path(path).parent
    if table is None:
        tables = _read(folder, "*cali_table*", load_table)
        table = _with_digest(tables, header.get("calibration_table"))
    if qtable is None:
        qtable = _with_digest(_read(folder, "*qtable*", load_qtable), header.get("qtable"))
    return Making(str(header.get("pipeline", "")), table, qtable)


def _read(folder: Path, pattern: str, load: Callable[[Path], DigestedT]) -> Iterator[DigestedT]:
    """The files of that name in a folder that can be read."""
    for path in sorted(folder.glob(pattern)):
        if path.suffix != ".npz":  # samples beside a table
            with contextlib.suppress(QdqcError):
                yield load(path)


def _with_digest(tables: Iterator[DigestedT], digest: object) -> DigestedT | None:
    return next((table for table in tables if table.digest == digest), None) if digest else None
