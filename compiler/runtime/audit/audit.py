"""The proof of what runs in integers: the runtime's own optimised model, read back.

Every node of the IR is looked up by the tensor that it makes; the kernel that makes this tensor
after the runtime's optimisations says whether it runs in integers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qdqc.ir.core import Node, Value
from qdqc.ir.graph import Module
from qdqc.ops import CASTS, Dequantize, MatMul, Quantize
from qdqc.quant.placement import Decision
from qdqc.runtime.audit.kernels import (
    Kernel,
    has_openvino,
    onnxruntime_kernels,
    openvino_kernels,
)

__all__ = ["PRODUCTS", "Audit", "AuditRow", "audit"]

_BORN_INTEGER = frozenset({"conv_integer", "matmul_integer", "qlinear_conv", "qlinear_matmul"})
"""Products that are integer whatever the placement says: their operands are no floats."""

PRODUCTS = frozenset({"conv", "conv_transpose", "gemm", "matmul"}) | _BORN_INTEGER
"""Ops that carry the work: each of them that stays float is named with its reason."""

_OPENVINO = "OpenVINO"


@dataclass(frozen=True)
class AuditRow:
    """One node: ``runs`` is integer or float; ``kernel`` is the runtime's, empty if fused."""

    name: str
    op: str
    runs: str
    kernel: str
    reason: str

    @property
    def is_product(self) -> bool:
        return self.op in PRODUCTS


@dataclass(frozen=True)
class Audit:
    """Rows in graph order, and findings: nodes that do not run as the plan wanted.

    ``runtime`` is whose kernels were looked at.
    """

    rows: tuple[AuditRow, ...]
    findings: tuple[AuditRow, ...]
    runtime: str = "onnxruntime"

    def products(self, runs: str) -> list[AuditRow]:
        """Conv, ConvTranspose, MatMul and Gemm that run in ``integer`` or ``float``."""
        return [r for r in self.rows if r.is_product and r.runs == runs]

    def others(self, runs: str) -> list[AuditRow]:
        """All other nodes that run in ``integer`` or ``float``."""
        return [r for r in self.rows if not r.is_product and r.runs == runs]


def audit(
    lowered: Module,
    decisions: Mapping[str, Decision],
    model: str | Path,
    runtime: str = "onnxruntime",
) -> Audit:
    """Hold the plan against what a runtime makes of the deployed model.

    ``lowered`` is the module that was deployed, ``decisions`` are by the names of nodes before
    lowering, ``model`` is the deployed file. ``runtime`` is "OpenVINO" or "onnxruntime", which
    stands in for OpenVINO where that is not installed. Nodes inside nested graphs are listed as
    float. Raises QdqcError where the runtime can't load the model.
    """
    if runtime != _OPENVINO or not has_openvino():
        runtime = "onnxruntime"
    kernels = (openvino_kernels if runtime == _OPENVINO else onnxruntime_kernels)(model)
    rows: list[AuditRow] = []
    findings: list[AuditRow] = []
    for node in lowered.walk():
        if isinstance(node.op, CASTS):
            continue
        if node.graph is not lowered.graph:
            rows.append(AuditRow(node.name, node.op.name, "float", "", "in a nested graph"))
            continue
        names = [n for result in node.present_results for n in _names(result)]
        fused = _fused_into(node) if node.op.name in _BORN_INTEGER else ()
        kernel = next((kernels[n] for n in (*names, *fused) if n in kernels), None)
        own = next((n for n in reversed(names) if n in decisions), node.name)
        decision = decisions.get(own)
        row = _row(node, own, kernel, decision, runtime)
        rows.append(row)
        unasked = _wanted(node, decision) != (row.runs == "integer")
        if decision is not None and row.is_product and unasked:
            findings.append(row)
    return Audit(tuple(rows), tuple(findings), runtime)


def _names(result: Value) -> list[str]:
    """Names of a lowered result: its integer tensor, itself, and last the value's own name.

    A matmul with a bias is written out as two nodes, and a clamp as a third: the product stands
    first. Integers that only a restatement reads have no view that bears the value's name.
    """
    stored = [u.result for u in result.users if isinstance(u.op, Quantize)]
    views = [u.result.name for s in stored for u in s.users if isinstance(u.op, Dequantize)]
    views = views or [s.name.removesuffix("_q") for s in stored]
    node = result.producer
    biased = node is not None and isinstance(node.op, MatMul) and node.operand("bias") is not None
    before = (f"{result.name}_{MatMul.name}", f"{result.name}_preact_{MatMul.name}")
    product = before if biased else ()
    return [*product, *(s.name for s in stored), result.name, *views[:1]]


def _fused_into(node: Node[Any]) -> list[str]:
    """Values behind a node up to where its path forks: a fused kernel makes one of them."""
    found: list[str] = []
    value = node.result
    while len(value.uses) == 1 and isinstance(user := value.uses[0].user, Node):
        value = user.result
        found.append(value.name)
    return found


def _wanted(node: Node[Any], decision: Decision | None) -> bool:
    return node.op.name in _BORN_INTEGER or (decision is not None and decision.integer)


def _row(
    node: Node[Any], name: str, kernel: Kernel | None, decision: Decision | None, runtime: str
) -> AuditRow:
    wanted, integer = _wanted(node, decision), kernel is not None and kernel.integer
    reason = ""
    if wanted and not integer:
        made = f" ({kernel.op} makes its result)" if kernel is not None else ""
        reason = f"laid for integers, but {runtime} left it float{made}"
    elif not integer:
        reason = decision.reason if decision is not None else "it was not to be quantized"
    elif not wanted and node.op.name in PRODUCTS:
        why = f" ({decision.reason})" if decision is not None and decision.reason else ""
        reason = f"planned in float{why}, but {runtime} runs it in integers"
    shown = "" if kernel is None or kernel.is_cast else kernel.op
    return AuditRow(name, node.op.name, "integer" if integer else "float", shown, reason)
