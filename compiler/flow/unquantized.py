"""A deployment of which no product took the mode that was asked for, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from qdqc.diagnostics import Diagnostic, Severity
from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.graph import Graph, Module
from qdqc.ir.types import Elem, TensorType
from qdqc.ops import If
from qdqc.quant.placement import Decision
from qdqc.runtime.audit.audit import PRODUCTS, products_text

__all__ = ["Unquantized", "unquantized"]

_NAMED = 4


@dataclass(frozen=True)
class Unquantized:
    """No product is of ``mode``; ``reasons`` counts why, ``ops`` are theirs, ``deciding`` are
    the inputs that choose among branches with products.
    """

    mode: str
    reasons: Mapping[str, int]
    ops: frozenset[str] = frozenset()
    deciding: tuple[str, ...] = ()

    @property
    def warning(self) -> Diagnostic:
        """What the user must know, and the way on."""
        count = sum(self.reasons.values())
        if not count:
            what = f"the model has no {products_text(PRODUCTS, 'or')}"
        else:
            what = f"none of {count} {products_text(self.ops)} took mode {self.mode}"
        why = [f"{n} because {reason}" for reason, n in self.reasons.items()]
        rest = sum(list(self.reasons.values())[_NAMED:])
        why[_NAMED:] = [f"{rest} for other reasons"] if rest else []
        return Diagnostic(
            Severity.WARNING,
            f"NOTHING WAS QUANTIZED: {what}; what is written computes as the float model does",
            notes=(*why, self._step),
        )

    @property
    def _step(self) -> str:
        if self.deciding:
            names = ", ".join(f"'{n}'" for n in self.deciding)
            return (
                f"the branches hang on {names}: where that is known, `bind` it at model_transform "
                f"({self.deciding[0]}=VALUE), and the branch that runs takes the place of the If"
            )
        return "deploy with mode F32 to have the float model under its own name"

    def entries(self) -> dict[str, Any]:
        """As ``--report`` has it."""
        return {
            "mode": self.mode,
            "reasons": dict(self.reasons),
            "deciding_inputs": list(self.deciding),
        }


def unquantized(module: Module, decisions: Mapping[str, Decision], mode: str) -> Unquantized | None:
    """Why no product of a typed module is of ``mode``; None where one is, and for mode F32."""
    if mode == "F32":
        return None
    products = [n for n in module.walk() if n.op.name in PRODUCTS]
    if any(_is_converted(node, mode) for node in products):
        return None
    reasons = Counter(_reason(node, decisions.get(node.name), mode) for node in products)
    owners = [o for o in map(_outermost, products) if o is not None and isinstance(o.op, If)]
    inputs = dict.fromkeys(n for owner in owners for n in _decide(owner, module.graph))
    ops = frozenset(node.op.name for node in products)
    return Unquantized(mode, dict(reasons.most_common()), ops, tuple(inputs))


def _is_converted(node: Node[Any], mode: str) -> bool:
    """Whether the product reads 8-bit integers, or halves where they were asked for."""
    types = [v.type for v in node.present_operands if isinstance(v.type, TensorType)]
    half = mode == "F16"
    return any(
        t.quant is not None
        or (t.elem.is_integer and t.elem.bits <= 8)
        or (half and t.elem is Elem.F16)
        for t in types
    )


def _reason(node: Node[Any], decision: Decision | None, mode: str) -> str:
    elems = {t.elem for t in node.operand_types() if isinstance(t, TensorType)}
    if Elem.F32 not in elems:
        return f"it computes in {', '.join(sorted(e.text for e in elems))}"
    if decision is not None and decision.reason != f"its mode is {mode}":
        return decision.reason
    return f"mode {mode} has no form for it"


def _outermost(node: Node[Any]) -> Node[Any] | None:
    """The node of the top graph that a nested one lies in; None for nodes of the top graph."""
    owner = node.graph.owner
    while owner is not None and owner.graph.owner is not None:
        owner = owner.graph.owner
    return owner


def _decide(owner: Node[Any], graph: Graph) -> Iterator[str]:
    """The inputs of the graph that the condition of an If is computed from."""
    seen: set[Value] = set()
    waiting = [owner.need("cond")]
    while waiting:
        value = waiting.pop()
        if value in seen or isinstance(value, Constant):
            continue
        seen.add(value)
        if value.producer is not None:
            waiting += value.producer.present_operands
        elif value.graph is graph:
            yield value.name
