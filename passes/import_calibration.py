"""import-calibration: ranges of a calibration table go onto the values."""

from __future__ import annotations

from qdqc.calibration.table_pass import TablePass
from qdqc.diagnostics import QdqcError, Severity
from qdqc.ir.graph import Graph
from qdqc.ir.types import TensorType
from qdqc.pipeline.pass_ import PassContext
from qdqc.text.digest import module_digest

__all__ = ["ImportCalibration"]


class ImportCalibration(TablePass):
    """Put the ranges of a calibration table onto the values that it names.

    A row whose name is not a value of the model is an error, since the value that was meant stays
    without a range; a value without a row is a warning. The header keeps the table's digest.
    """

    name = "import-calibration"

    def run(self, graph: Graph, ctx: PassContext) -> int:
        # Here, so that listing the passes does not load what reads images.
        from qdqc.calibration.observed import plan_of
        from qdqc.calibration.table_check import check_digest, check_table

        table = self.calibration(ctx)
        check_digest(table, module_digest(graph.module), table.file)
        diagnostics = check_table(table, plan_of(graph).names, table.file)
        errors = [d for d in diagnostics if d.severity is Severity.ERROR]
        if errors:
            raise QdqcError.of(errors[0])
        ctx.warnings.extend(diagnostics)
        changes = 0
        for name, row in table.rows.items():
            value = graph.module.value(name)
            if value is None or not isinstance(value.type, TensorType):
                continue
            changes += value.type.range != row
            value.type = value.type.with_range(row)
        ctx.statistics["ranges"] += changes
        header, digest = graph.module.header, table.digest
        renamed = header.get("calibration_table") != digest
        header["calibration_table"] = digest
        return changes + renamed
