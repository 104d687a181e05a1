"""The proof of what runs in integers: the runtime's own optimised model, read back.

Every node of the IR is looked up by the tensors that its value became; the kernel that computes one
of them after the runtime's optimisations says whether it runs in integers. Which rule of the
target it breaks is another matter, and decides nothing of that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qdqc.ir.core import Node
from qdqc.ir.graph import Module
from qdqc.ir.op import QuantTraits
from qdqc.onnx_io.exporter import export_parts
from qdqc.ops import CASTS, RECURRENT, DynamicQuantizeLSTM
from qdqc.ops.opaque import Opaque
from qdqc.quant.lowered import Lowered, lowered_of
from qdqc.quant.placement import Decision
from qdqc.runtime.audit.kernel import FOLDED, INTEGER_PRODUCTS, PRODUCT_KERNELS, Kernel
from qdqc.runtime.audit.kernels import RUNTIMES, OnnxRuntime

__all__ = ["PRODUCTS", "Audit", "AuditRow", "audit", "products_text"]

_BORN_INTEGER = INTEGER_PRODUCTS | {
    "conv_integer",
    "dynamic_quantize_lstm",
    "matmul_integer",
    "qlinear_conv",
    "qlinear_matmul",
}
"""Products that are integer whatever the placement says: their operands are no floats."""

_LAYERS = frozenset(op.name for op in (*RECURRENT, DynamicQuantizeLSTM))

PRODUCTS = (
    frozenset({"conv", "conv_transpose", "gemm", "matmul"})
    | _LAYERS
    | _BORN_INTEGER
    | PRODUCT_KERNELS
)
"""Ops that carry the work: each of them that stays float is named with its reason."""


def products_text(ops: Collection[str], joint: str = "and") -> str:
    """What products are called; recurrent layers are left out where ``ops`` has none."""
    plain = ["Conv", "ConvTranspose", "MatMul", "Gemm"]
    if not _LAYERS.isdisjoint(ops):
        plain.append("recurrent layers")
    return f"{', '.join(plain[:-1])} {joint} {plain[-1]}"


_NESTED = Decision(False, QuantTraits(), reason="in a nested graph")
"""Of nodes inside nested graphs, of which no decision is known."""


@dataclass(frozen=True)
class AuditRow:
    """One node, as the runtime's optimised model has it and as the target's rules see it.

    ``op`` of an op that has no entry here is its ONNX type. ``runs`` is integer, float, or
    folded: a product that has no kernel left, as it was computed when the model was loaded, is the
    same as another one, or is read by nobody. ``kernel`` is the runtime's name for what
    computes it, empty where that is not known. ``rule`` is the first of the target's rules that
    the node breaks, however it runs; ``reason`` says how it breaks it, or why it runs so.
    """

    name: str
    op: str
    runs: str
    kernel: str
    reason: str
    rule: str = ""

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
        """Products and recurrent layers that are ``integer``, ``float`` or ``folded``."""
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
    stands in for one that is not installed. Nodes inside nested graphs are looked up as they came.
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
        nested = node.graph is not lowered.graph
        names = _results(node) if nested else _tensors(node, values, parts)
        kernel = next((kernels[n] for n in names if n in kernels), None)
        own = next((n for n in _own_names(node, values) if n in decisions), None)
        own = own or values.value_of(node.name)
        decision = decisions.get(own, _NESTED if nested else None)
        row = _row(node, own, kernel, decision, chosen.name)
        rows.append(row)
        if decision is not None and row.is_product and _is_unasked(node, decision, row):
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
    product = _op(node) in PRODUCTS
    out = list(parts.get(node.name, _results(node))[:1]) if product else []
    for name in _results(node):
        value = values.of(values.value_of(name))
        out += [n for n in (value.stored, name, value.view) if n is not None]
    return out


def _op(node: Node[Any]) -> str:
    return node.op.type if isinstance(node.op, Opaque) else node.op.name


def _wanted(node: Node[Any], decision: Decision | None) -> bool:
    return _op(node) in _BORN_INTEGER or (decision is not None and decision.integer)


def _is_unasked(node: Node[Any], decision: Decision, row: AuditRow) -> bool:
    """Whether a product runs otherwise than it was to. MatMulNBits rounds as it runs, whoever
    asks for float activations.
    """
    if row.runs == "folded" or row.kernel == "MatMulNBits":
        return False
    return _wanted(node, decision) != (row.runs == "integer")


def _row(
    node: Node[Any], name: str, kernel: Kernel | None, decision: Decision | None, runtime: str
) -> AuditRow:
    wanted, integer = _wanted(node, decision), kernel is not None and kernel.integer
    rule = decision.rule if decision is not None else ""
    reason = f"breaks {rule}: {decision.reason}" if decision is not None and rule else ""
    runs = "integer" if integer else "float"
    if kernel is FOLDED:
        runs, reason = "folded", f"{runtime} leaves no kernel of it"
    elif wanted and not integer:
        made = f" ({kernel.op} makes its result)" if kernel is not None else ""
        reason = f"quantized, but {runtime} left it float{made}"
    elif not integer and not rule:
        reason = decision.reason if decision is not None else "it was not to be quantized"
    elif kernel is not None and integer and kernel.op == "MatMulNBits":
        reason = "MatMulNBits rounds its activations to 8 bits as it runs"
    elif integer and not wanted and not rule and _op(node) in PRODUCTS:
        why = f" ({decision.reason})" if decision is not None and decision.reason else ""
        reason = f"planned in float{why}, but {runtime} runs it in integers"
    shown = "" if kernel is None or kernel.is_cast else kernel.op
    return AuditRow(name, _op(node), runs, shown, reason, rule)
