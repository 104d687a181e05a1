"""Holds a module against the file that it was imported from, as onnxruntime runs that."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from qdqc.ir.graph import Module
from qdqc.ir.types import Quant
from qdqc.quant.arithmetic import dequantize
from qdqc.runtime.comparison.check import shared_values
from qdqc.runtime.comparison.choices import choices
from qdqc.runtime.comparison.compare import Comparison, Similarity, excepted, mismatch
from qdqc.runtime.comparison.pooled import Pools
from qdqc.runtime.comparison.steadiness import Steadiness, allowed, steadiness_of
from qdqc.runtime.sessions.session import Feeds, Runner
from qdqc.runtime.sessions.source_model import Source

__all__ = ["AgainstSource", "check_against_source"]

Values = Mapping[str, npt.NDArray[Any]]

_DOUBTED_BELOW = 60.0
_DOUBTED_BY = 40.0
"""Decibels: what agrees less than the first, and by the second less than the source with itself,
is more than rounding."""


@dataclass(frozen=True)
class AgainstSource:
    """A ``comparison`` with the source, in which ``let_through`` pass for the source's own noise.

    ``values`` are those of the module on the last sample. ``steadiness`` is the source's, and
    ``not_finite`` are outputs of which it had no finite number.
    """

    comparison: Comparison
    steadiness: Steadiness
    let_through: tuple[str, ...]
    values: Values
    not_finite: tuple[str, ...] = ()

    @property
    def shaky(self) -> list[str]:
        """Values that the source gives too loosely to hold anybody to them."""
        return self.steadiness.shaky(r.name for r in self.comparison.rows)

    @property
    def doubtful(self) -> list[Similarity]:
        """Values that pass, and differ by more than the source's own noise explains."""
        own = self.steadiness.rows
        return [
            row
            for row in self.comparison.rows
            if row.passed
            and row.name in own
            and row.sqnr < min(_DOUBTED_BELOW, own[row.name].sqnr - _DOUBTED_BY)
        ]


def check_against_source(
    module: Module,
    imported: Module,
    source: Source,
    samples: Iterable[Feeds],
    tolerance: tuple[float, float],
    excepts: Sequence[str] = (),
) -> AgainstSource:
    """Run the module and the source, and compare all outputs and the values that both have.

    The float values are those of which ``imported``, the module before its passes, says that they
    are the same. Outputs must agree in element type. Raises SourceError where onnxruntime does
    not load or run the source.
    """
    shared = shared_values(module, imported)
    taps = [n for n in shared if n in source.made and not _quant(imported, n)]
    run = source.open(taps, optimise="off")

    def theirs(feeds: Feeds) -> dict[str, npt.NDArray[Any]]:
        values = run(feeds)
        quants = {n: quant for n in values if (quant := _quant(imported, n))}
        return values | {n: dequantize(values[n], quant) for n, quant in quants.items()}

    ours = Runner(module, taps)
    decided = choices(imported).within({*taps, *source.outputs, *ours.inputs})
    pools, unfit = Pools(excepts, decided, spread=False), dict[str, str]()
    seen: list[Feeds] = []
    values: dict[str, npt.NDArray[Any]] = {}
    finite: dict[str, bool] = {}
    for feeds in samples:
        seen = [*seen, feeds][:2]
        ours.check(feeds)
        given = {n: np.asarray(feeds[n]) for n in ours.inputs if not isinstance(feeds[n], list)}
        expected = theirs(feeds)
        values = given | ours.run(feeds)
        order = [*taps, *(n for n in expected if n not in taps)]
        pools.see(values, {n: expected[n] for n in order})
        unfit |= _unfit(values, expected, source.outputs)
        finite |= {n: finite.get(n, False) or _has_numbers(expected.get(n)) for n in source.outputs}
    strict = _with(
        pools.comparison(tolerance), {n: t for n, t in unfit.items() if not excepted(n, excepts)}
    )
    steadiness = steadiness_of(source, theirs, seen, tolerance)
    loose = allowed(strict, steadiness)
    pairs = zip(strict.rows, loose.rows, strict=True)
    let_through = tuple(b.name for a, b in pairs if b.passed and not a.passed)
    lost = tuple(name for name, has_numbers in finite.items() if not has_numbers)
    return AgainstSource(loose, steadiness, let_through, values, lost)


def _has_numbers(array: npt.NDArray[Any] | None) -> bool:
    """Whether something of an array is finite, or it has no floats that might not be."""
    if array is None or array.dtype.kind != "f" or not array.size:
        return True
    return bool(np.isfinite(array).any())


def _quant(module: Module, name: str) -> Quant | None:
    """What a value's integers stand for: those that the module's run gives as numbers."""
    value = module.value(name)
    return None if value is None else value.quant


def _unfit(values: Values, expected: Values, outputs: Collection[str]) -> dict[str, str]:
    """Why values fit nothing: one is missing, or an output is of another type."""
    notes: dict[str, str] = {}
    for name, reference in expected.items():
        if name not in values:
            notes[name] = "the module does not have it"
        elif values[name].dtype != reference.dtype and name in outputs:
            notes[name] = f"{values[name].dtype} against {reference.dtype}"
    return notes


def _with(comparison: Comparison, unfit: Mapping[str, str]) -> Comparison:
    """The comparison in which these values fit nothing."""
    rows = {row.name: row for row in comparison.rows}
    rows |= {name: mismatch(name, note) for name, note in unfit.items()}
    return Comparison(tuple(rows.values()), comparison.tolerance)
