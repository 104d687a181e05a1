"""The lowest opset at which every node of a module can be spelt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnx import helper

from qdqc.diagnostics import QdqcError
from qdqc.ir.core import Node
from qdqc.ir.graph import Module
from qdqc.ir.types import Elem
from qdqc.onnx_io.schemas import NEWEST, OLDEST
from qdqc.onnx_io.spell import misfit, signature
from qdqc.ops import Dequantize

__all__ = ["choose_opset", "ir_version", "is_spellable"]

_CASTS = 21
"""Up to this opset an op behind a cast is written whole: runtimes in use since 2024 have it."""

_ELEM_IR = {
    Elem.F8E4M3FN: 9,
    Elem.F8E4M3FNUZ: 9,
    Elem.F8E5M2: 9,
    Elem.F8E5M2FNUZ: 9,
    Elem.I4: 10,
    Elem.U4: 10,
    Elem.F4E2M1: 11,
    Elem.F8E8M0: 12,
    Elem.I2: 13,
    Elem.U2: 13,
}
"""The IR version of ONNX that brought an element type."""


def choose_opset(module: Module, wanted: int | None) -> int:
    """The wanted opset, else the lowest that suffices.

    An op that is younger than the source's opset is written out with older ones rather than
    asking for a newer opset; one that the source may have had itself is written whole, and so is
    one that reads a cast of integers: written out it would read it several times, for which
    onnxruntime makes as many casts and no fused kernel.
    Raises QdqcError at the node that the wanted opset can't spell, or at one of two nodes
    that no opset spells together.
    """
    if wanted is not None and not OLDEST <= wanted <= NEWEST:
        raise QdqcError(
            f"opset {wanted} can't be written; the installed onnx knows {OLDEST} to {NEWEST}"
        )
    source = module.opsets.get("", NEWEST)
    fits: dict[tuple[Any, ...], set[int]] = {}
    first: dict[tuple[Any, ...], Node[Any]] = {}
    for node in module.walk():
        whole = _since(node) <= (max(source, _CASTS) if _reads_cast(node) else source)
        key = (whole, *signature(node))
        if key not in fits:
            first[key] = node
            opsets = [wanted] if wanted is not None else range(OLDEST, NEWEST + 1)
            written_whole = wanted is None and whole
            fits[key] = {v for v in opsets if misfit(node, v, whole=written_whole) is None}
            if written_whole and not fits[key]:
                fits[key] = {v for v in opsets if misfit(node, v) is None}
    common = set(range(OLDEST, NEWEST + 1)) if wanted is None else {wanted}
    for key, opsets in fits.items():
        node = first[key]
        if not opsets:
            at = wanted if wanted is not None else NEWEST
            hint = _hint(node) if wanted is not None else "keep this part of the model in float32"
            raise _unfit(node, f"opset {at} can't spell it: {misfit(node, at)}", hint)
        if not common & opsets:
            low, high = min(common), max(common)
            raise _unfit(
                node,
                f"it can be written at opset {min(opsets)} to {max(opsets)}, but the nodes before "
                f"it need opset {low}" + (f" to {high}" if high > low else ""),
                "convert the source model to a newer opset with onnx.version_converter",
            )
        common &= opsets
    return min(common)


def is_spellable(node: Node[Any]) -> bool:
    """Whether the opset that brought the op, or one that runtimes have, takes its types.

    What a younger opset added to an old op, runtimes do by other means, if at all.
    """
    newest = min(NEWEST, max(_CASTS, _since(node)))
    return any(misfit(node, opset) is None for opset in range(OLDEST, newest + 1))


def _reads_cast(node: Node[Any]) -> bool:
    producers = (v.producer for v in node.present_operands)
    return any(p is not None and isinstance(p.op, Dequantize) for p in producers)


def _since(node: Node[Any]) -> int:
    return 0 if node.op.onnx is None else node.op.onnx.since


def _hint(node: Node[Any]) -> str:
    opsets = [v for v in range(OLDEST, NEWEST + 1) if misfit(node, v) is None]
    if not opsets:
        return "no opset can spell it"
    return f"it can be written at opset {min(opsets)} to {max(opsets)}"


def _unfit(node: Node[Any], message: str, hint: str) -> QdqcError:
    return QdqcError(message, node=node.op.name, loc=node.loc, notes=[hint])


def ir_version(module: Module, opsets: Mapping[str, int]) -> int:
    """The lowest IR version that has these opsets and the module's element types."""
    entries = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    # Version 3 wanted initializers among the inputs.
    lowest = max(4, helper.find_min_ir_version_for(entries, ignore_unknown=True))
    for name in module.value_names():
        value = module.value(name)
        if value is not None and value.elem is not None:
            lowest = max(lowest, _ELEM_IR.get(value.elem, 0))
    return lowest
