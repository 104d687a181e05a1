"""Does a calibration table belong to a model?"""

from __future__ import annotations

from collections.abc import Iterable

from qdqc.calibration.table import Table
from qdqc.diagnostics import Diagnostic, QdqcError, Severity, nearest
from qdqc.ir.loc import Loc

__all__ = ["check_digest", "check_table"]

_SHOWN = 5


def check_table(table: Table, names: Iterable[str], file: str | None = None) -> list[Diagnostic]:
    """What is wrong between a table and the names of a model's activation values.

    A row that no value bears is an error where a value that is like it lacks its row: it is
    misspelt. Otherwise the row is merely unused, a warning. Values without a row can't be
    quantized, a warning that names them. A table of which no row fits is an error.
    """
    known = dict.fromkeys(names)
    missing = [n for n in known if n not in table.rows]
    unknown = [n for n in table.rows if n not in known]
    if known and len(unknown) == len(table.rows):
        reason = "no row names a value of this model" if unknown else "it has no rows"
        note = "give the table that run_calibration wrote for this model"
        return [
            Diagnostic(
                Severity.ERROR, f"wrong calibration table: {reason}", None, None, file, (note,)
            )
        ]
    out: list[Diagnostic] = []
    for name in unknown:
        like = nearest(name, missing)
        place = table.places.get(name)
        loc = None if place is None else Loc(position=place)
        if like is not None:
            message = f"the model has no value '{name}'; did you mean '{like}', which has no row?"
            notes = ("correct the name, or delete the row to leave the value float",)
            out.append(Diagnostic(Severity.ERROR, message, loc=loc, file=file, notes=notes))
        else:
            like = nearest(name, known)
            hint = f"; the nearest is '{like}'" if like else ""
            message = f"the model has no value '{name}': the row is not used{hint}"
            out.append(Diagnostic(Severity.WARNING, message, loc=loc, file=file))
    if missing:
        shown = ", ".join(f"'{n}'" for n in missing[:_SHOWN])
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        message = f"no row for {shown}{more}: the nodes that need them stay float"
        out.append(Diagnostic(Severity.WARNING, message, file=file))
    return out


def check_digest(table: Table, digest: str, file: str | None = None) -> None:
    """A table that states a model's digest belongs to that model alone. Raises QdqcError."""
    stated = table.header.get("digest")
    if stated is not None and stated != digest:
        model = table.header.get("model", "another model")
        raise QdqcError(
            f"the calibration table belongs to another model: it was made from {model} with "
            f"digest {stated}, but this one has {digest}",
            file=file,
            notes=["run run_calibration on this model, or give the model of the table"],
        )
