"""The targets by name."""

from __future__ import annotations

from qdqc.diagnostics import QdqcError, suggestion
from qdqc.quant.targets.openvino import OPENVINO
from qdqc.quant.targets.ort_cpu import ORT_CPU
from qdqc.quant.targets.ort_cpu_avx2 import ORT_CPU_AVX2
from qdqc.quant.targets.target import Target

__all__ = ["TARGETS", "target_named"]

TARGETS: dict[str, Target] = {t.name: t for t in (ORT_CPU, ORT_CPU_AVX2, OPENVINO)}


def target_named(name: str) -> Target:
    """The target of that name. Raises QdqcError that lists the known ones."""
    if name not in TARGETS:
        raise QdqcError(
            f"unknown target '{name}'{suggestion(name, TARGETS)}",
            notes=[f"targets are {', '.join(TARGETS)}"],
        )
    return TARGETS[name]
