"""Why one node runs as it does."""

from __future__ import annotations

from typing import Any

import numpy as np

from qdqc.diagnostics import QdqcError, joined, suggestion
from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.graph import Module
from qdqc.ir.types import TensorType
from qdqc.quant.targets.rules import verdicts
from qdqc.quant.targets.target import Target
from qdqc.runtime.audit.audit import Audit, AuditRow

__all__ = ["node_named", "render_why"]


def node_named(typed: Module, name: str) -> Node[Any]:
    """The node of that name, or with a result of it. Raises QdqcError for a name that none has."""
    value = typed.value(name)
    if value is not None and value.producer is not None:
        return value.producer
    names = [r.name for n in typed.graph.nodes() for r in n.present_results]
    raise QdqcError(
        f"no node is called '{name}'{suggestion(name, names)}",
        notes=["names are those of the .qir file; a node has the name of its first result"],
    )


def render_why(node: Node[Any], audit: Audit, target: Target) -> str:
    """How a node runs and by which kernel, what it reads and gives, and the target's rules.

    The node is one of the module whose types are integer, before it is lowered.
    """
    lines = [_head(node, next((r for r in audit.rows if r.name == node.name), None))]
    for label, operand in zip(_labels(node), node.operands, strict=False):
        if operand is not None:
            lines.append(f"  {label:<8} {_described(operand)}")
    lines += [f"  {'gives':<8} {_described(result)}" for result in node.present_results]
    messages = dict(verdicts(node, target))
    kept = [rule for rule, message in messages.items() if message is None]
    if kept:
        lines.append(f"  keeps the rules of {target.name}: {', '.join(kept)}")
    lines += [f"  breaks {rule}: {message}" for rule, message in messages.items() if message]
    return joined(lines)


def _head(node: Node[Any], row: AuditRow | None) -> str:
    if row is None:
        return f"{node.op.name} '{node.name}' is not in the deployed model"
    kernel = f" by {row.kernel}" if row.kernel else ""
    runs = {"integer": "runs in integers", "float": "runs in float", "folded": "is folded"}
    reason = f": {row.reason}" if row.reason else ""
    return f"{node.op.name} '{node.name}' {runs[row.runs]}{kernel}{reason}"


def _labels(node: Node[Any]) -> list[str]:
    declared = [n.rstrip("?*") for n in node.op.operands]
    return [*declared, *[declared[-1]] * (len(node.operands) - len(declared))] if declared else []


def _described(value: Value) -> str:
    """The type in words: element, shape, scale and zero point; of a constant its extent."""
    type_ = value.type
    if not isinstance(type_, TensorType):
        return f"%{value.name}"
    shape = "?" if type_.shape is None else ",".join(str(d) for d in type_.shape)
    text = f"%{value.name} : {type_.elem.text}[{shape}]"
    quant = type_.quant
    if quant is not None and quant.axis is None:
        text += f", scale {float(quant.scale):g}, zero point {int(quant.zero_point)}"
    elif quant is not None:
        low, high = float(np.min(quant.scale)), float(np.max(quant.scale))
        text += f", {quant.scale.size} scales {low:g}..{high:g} along axis {quant.axis}"
    elif type_.range is not None:
        text += f", range {type_.range.min:g}..{type_.range.max:g}"
    if isinstance(value, Constant) and not value.data.is_elided and value.data.array().size:
        array = value.data.array()
        if array.dtype.kind in "iuf":
            text += f", from {array.min():g} to {array.max():g}"
    return text
