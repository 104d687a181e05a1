"""Passes that read a calibration table."""

from __future__ import annotations

from qdqc.calibration.table import Table, load_table
from qdqc.diagnostics import QdqcError
from qdqc.pipeline.pass_ import Pass, PassContext

__all__ = ["TablePass"]


class TablePass(Pass):
    """A pass that needs a calibration table: the file of its option, else its caller's table."""

    table: str = ""

    def calibration(self, ctx: PassContext) -> Table:
        """The table. Raises QdqcError where there is none, or none that can be read."""
        if self.table:
            return load_table(self.table)
        if ctx.table is None:
            raise QdqcError(
                f"pass '{self.name}' needs a calibration table, and there is none",
                notes=[f'name its file: {self.name}{{table="net.cali_table"}}'],
            )
        return ctx.table
