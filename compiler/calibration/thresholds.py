"""The spelling of threshold methods: ``kl``, ``use_KL``, ``percentile9999{percentile=99.9}``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from qdqc.calibration.methods.method import METHODS, Method
from qdqc.diagnostics import QdqcError
from qdqc.ir.fields import hints
from qdqc.pipeline.spec import instance_of, parse_pipeline

__all__ = ["DEFAULT", "method_named"]

DEFAULT = "mse"
"""The best on average over the networks of ``benchmarks/methods.py``."""


def method_named(text: str, **options: Any) -> Method:
    """The method of a text: its name in any case, or as ``use_kl``, with options in braces.

    ``options`` are set where the method has them and the text does not state them. Raises
    QdqcError for an unknown method, and for options that it lacks or that are out of bounds.
    """
    steps = parse_pipeline(text, "<calibration method>")
    if len(steps) != 1 or steps[0].named:
        raise QdqcError(f"'{text}' does not name one calibration method")
    step = steps[0]
    name = step.name.lower().removeprefix("use_")
    cls = type(METHODS[name])
    known = {option: value for option, value in options.items() if option in hints(cls)}
    chosen = replace(step, options={**known, **step.options})
    return instance_of(cls, chosen, f"calibration method '{name}'")
