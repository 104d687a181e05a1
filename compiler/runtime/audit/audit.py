"""The proof of what runs in integers: the runtime's own optimised model, read back.

Every node of the IR is looked up by the tensors that its value became; the kernel that makes one of
them after the runtime's optimisations says whether it runs in integers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qdqc.ir.core import Node
from qdqc.ir.graph import Module
from qdqc.onnx_io.exporter import export_parts
from qdqc.ops import CASTS, Clip, Quantize, Relu
from qdqc.quant.lowered import Lowered, lowered_of
from qdqc.quant.placement import Decision
from qdqc.runtime.audit.kernels import RUNTIMES, Kernel, OnnxRuntime

__all__ = ["PRODUCTS", "Audit", "AuditRow", "audit"]

_BORN_INTEGER = frozenset({"conv_integer", "matmul_integer", "qlinear_conv", "qlinear_matmul"})
"""Products that are integer whatever the placement says: their operands are no floats."""

PRODUCTS = frozenset({"conv", "conv_transpose", "gemm", "matmul"}) | _BORN_INTEGER
"""Ops that carry the work: each of them that stays float is named with its reason."""


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
    runtime: str = OnnxRuntime.name

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
    runtime: str = OnnxRuntime.name,
) -> Audit:
    """Hold the plan against what a runtime makes of the deployed model.

    ``lowered`` is the module that was deployed, ``decisions`` are by the names of nodes before
    lowering, ``model`` is the deployed file. ``runtime`` is a name of ``RUNTIMES``; onnxruntime
    stands in for one that is not installed. Nodes inside nested graphs are listed as float.
    Raises QdqcError for an unknown runtime, and where it can't load the model.
    """
    asked = RUNTIMES[runtime]
    chosen = asked if asked.is_installed else RUNTIMES[OnnxRuntime.name]
    kernels, values, parts = chosen.kernels(model), lowered_of(lowered), export_parts(lowered)
    rows: list[AuditRow] = []
    findings: list[AuditRow] = []
    for node in lowered.walk():
        if isinstance(node.op, CASTS):
            continue
        if node.graph is not lowered.graph:
            rows.append(AuditRow(node.name, node.op.name, "float", "", "in a nested graph"))
            continue
        names = _tensors(node, values, parts)
        fused = _fused_into(node) if node.op.name in PRODUCTS else ()
        kernel = next((kernels[n] for n in (*names, *fused) if n in kernels), None)
        own = next((n for n in _own_names(node, values) if n in decisions), None)
        own = own or values.value_of(node.name)
        decision = decisions.get(own)
        row = _row(node, own, kernel, decision, chosen.name)
        rows.append(row)
        unasked = _wanted(node, decision) != (row.runs == "integer")
        if decision is not None and row.is_product and unasked:
            findings.append(row)
    return Audit(tuple(rows), tuple(findings), chosen.name)


def _results(node: Node[Any]) -> list[str]:
    return [result.name for result in node.present_results]


def _own_names(node: Node[Any], values: Lowered) -> Iterator[str]:
    """Names that the node may have had before it was quantized: that of its value, or of the
    float view that a graph output is.
    """
    for name in _results(node):
        value = values.value_of(name)
        yield from filter(None, (values.of(value).view, value, name))


def _tensors(node: Node[Any], values: Lowered, parts: Mapping[str, Sequence[str]]) -> list[str]:
    """Tensors of the file by which the kernel of a node is known, the most telling one first.

    A product with a bias is written out as several nodes: the bare product stands first. Then
    come the integers of a result, itself, and the float view of its integers.
    """
    bare = parts.get(node.name, ())[:1] if node.op.name in PRODUCTS else ()
    out = list(bare)
    for name in _results(node):
        value = values.of(values.value_of(name))
        out += [n for n in (value.stored, name, value.view) if n is not None]
    return out


def _fused_into(node: Node[Any]) -> list[str]:
    """Values behind a product up to where its path forks: a fused kernel makes one of them.

    A float product is fused with a clamp and a cast at most.
    """
    names: list[str] = []
    value = node.result
    born = node.op.name in _BORN_INTEGER
    while len(value.uses) == 1 and isinstance(user := value.uses[0].user, Node):
        if not born and not isinstance(user.op, Clip | Relu | Quantize):
            break
        results = user.present_results
        if not results:
            break
        value = results[0]
        names.append(value.name)
    return names


def _wanted(node: Node[Any], decision: Decision | None) -> bool:
    return node.op.name in _BORN_INTEGER or (decision is not None and decision.integer)


def _row(
    node: Node[Any], name: str, kernel: Kernel | None, decision: Decision | None, runtime: str
) -> AuditRow:
    wanted, integer = _wanted(node, decision), kernel is not None and kernel.integer
    reason = ""
    if wanted and not integer:
        made = f" ({kernel.op} makes its result)" if kernel is not None else ""
        reason = f"quantized, but {runtime} left it float{made}"
    elif not integer:
        reason = decision.reason if decision is not None else "it was not to be quantized"
    elif not wanted and node.op.name in PRODUCTS:
        why = f" ({decision.reason})" if decision is not None and decision.reason else ""
        reason = f"planned in float{why}, but {runtime} runs it in integers"
    shown = "" if kernel is None or kernel.is_cast else kernel.op
    return AuditRow(name, node.op.name, "integer" if integer else "float", shown, reason)
