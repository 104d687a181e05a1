"""The proof of what runs in integers: onnxruntime's own optimised model, read back.

Every node of the IR is looked up by the tensor that it makes; the kernel that makes this tensor
after onnxruntime's optimisations says whether it runs in integers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort

from compiler.diagnostics import QdqcError
from compiler.ir.core import Node, Value
from compiler.ir.graph import Module
from compiler.ops import CASTS, Dequantize, MatMul, Quantize
from compiler.quant.placement import Decision
from compiler.runtime.session import first_line, session_options

__all__ = ["PRODUCTS", "Audit", "AuditRow", "audit", "optimised_model"]

_BORN_INTEGER = frozenset({"conv_integer", "matmul_integer", "qlinear_conv", "qlinear_matmul"})
"""Products that are integer whatever the placement says: their operands are no floats."""

PRODUCTS = frozenset({"conv", "conv_transpose", "gemm", "matmul"}) | _BORN_INTEGER
"""Ops that carry the work: each of them that stays float is named with its reason."""

INTEGER_KERNELS = frozenset(
    {
        "ConvInteger",
        "DynamicQuantizeMatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "QGemm",
        "QLinearAdd",
        "QLinearAveragePool",
        "QLinearConcat",
        "QLinearConv",
        "QLinearGlobalAveragePool",
        "QLinearLeakyRelu",
        "QLinearMatMul",
        "QLinearMul",
        "QLinearSigmoid",
        "QLinearSoftmax",
        "QLinearWhere",
    }
)

_MOVERS = frozenset(
    {
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "MaxPool",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)
"""Ops whose one kernel takes any element type and hands it on."""

_INTEGER_TYPES = frozenset({onnx.TensorProto.UINT8, onnx.TensorProto.INT8})
_CASTS = frozenset({"QuantizeLinear", "DequantizeLinear"})


@dataclass(frozen=True)
class AuditRow:
    """One node: ``runs`` is integer or float; ``kernel`` is onnxruntime's op, empty if fused."""

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
    """Rows in graph order, and findings: nodes that do not run as the plan wanted."""

    rows: tuple[AuditRow, ...]
    findings: tuple[AuditRow, ...]

    def products(self, runs: str) -> list[AuditRow]:
        """Conv, ConvTranspose, MatMul and Gemm that run in ``integer`` or ``float``."""
        return [r for r in self.rows if r.is_product and r.runs == runs]


def optimised_model(path: str | Path) -> onnx.ModelProto:
    """The model as onnxruntime rewrites it, without its weights' external data.

    Level "extended": the full level adds layout transposes that say nothing here.
    """
    with tempfile.TemporaryDirectory(prefix="qdqc-audit-") as folder:
        out = Path(folder) / "optimised.onnx"
        options = session_options(optimise="extended", threads=1)
        options.optimized_model_filepath = str(out)
        try:
            ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise QdqcError(
                f"onnxruntime can't load the deployed model: {first_line(error)}", file=str(path)
            ) from error
        return onnx.load(str(out), load_external_data=False)


def audit(lowered: Module, decisions: Mapping[str, Decision], model: str | Path) -> Audit:
    """Hold the plan against what onnxruntime makes of the deployed model.

    ``lowered`` is the module that was deployed, ``decisions`` are by the names of nodes before
    lowering, ``model`` is the deployed file. Nodes inside nested graphs are listed as float.
    """
    optimised = optimised_model(model)
    makers = {o: n for n in optimised.graph.node for o in n.output if o}
    integer_values = _integer_values(optimised)
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
        maker = next((makers[n] for n in (*names, *fused) if n in makers), None)
        own = next((n for n in reversed(names) if n in decisions), node.name)
        decision = decisions.get(own)
        integer = maker is not None and _is_integer(maker, integer_values)
        row = _row(node, own, maker, integer, decision)
        rows.append(row)
        wanted = _wanted(node, decision)
        if decision is not None and row.is_product and wanted != integer:
            findings.append(row)
    return Audit(tuple(rows), tuple(findings))


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


def _integer_values(model: onnx.ModelProto) -> set[str]:
    """Names of 8-bit tensors. The file states the types of few; what moves integers gives some."""
    typed = [*model.graph.value_info, *model.graph.input, *model.graph.output]
    found = {v.name for v in typed if v.type.tensor_type.elem_type in _INTEGER_TYPES}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" or node.op_type.startswith("QLinear"):
            found.update(node.output)
        elif node.op_type in _MOVERS and node.input[0] in found:
            found.update(node.output[:1] if node.op_type == "MaxPool" else node.output)
    return found


def _is_integer(maker: onnx.NodeProto, integer_values: set[str]) -> bool:
    if maker.op_type in INTEGER_KERNELS:
        return True
    if maker.op_type in _CASTS:
        return False
    return bool(maker.input) and maker.input[0] in integer_values


def _row(
    node: Node[Any],
    name: str,
    maker: onnx.NodeProto | None,
    integer: bool,
    decision: Decision | None,
) -> AuditRow:
    kernel = "" if maker is None else maker.op_type
    wanted = _wanted(node, decision)
    reason = ""
    if wanted and not integer:
        reason = (
            f"laid for integers, but onnxruntime left it float"
            f"{f' ({kernel} makes its result)' if kernel else ''}"
        )
    elif not integer:
        reason = decision.reason if decision is not None else "it was not to be quantized"
    elif not wanted and node.op.name in PRODUCTS:
        why = f" ({decision.reason})" if decision is not None and decision.reason else ""
        reason = f"planned in float{why}, but onnxruntime runs it in integers"
    runs = "integer" if integer else "float"
    shown = "" if kernel in _CASTS else kernel
    return AuditRow(name, node.op.name, runs, shown, reason)
