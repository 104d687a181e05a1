"""Products that a target runs in integers, for passes that tune their weights."""

from __future__ import annotations

from collections.abc import Sequence

from qdqc.diagnostics import QdqcError, suggestion
from qdqc.ir.graph import Graph
from qdqc.pipeline.pass_ import PassContext
from qdqc.quant.targets.target import target_named
from qdqc.tuning.columns import Product, product_of

__all__ = ["SCHEMES", "check_choice", "integer_products"]

SCHEMES = ("per-channel", "per-tensor")
"""Whether each row of a weight has a scale, or all have one."""


def integer_products(graph: Graph, target: str, rule: str, ctx: PassContext) -> list[Product]:
    """The products with a float weight that the target may run in integers.

    Those that it may not are declined for ``rule``, with the reason.
    """
    runs = target_named(target)
    products: list[Product] = []
    for node in graph.nodes():
        traits = node.traits
        product = product_of(node)
        reason = runs.no_kernel(node, traits) if isinstance(product, Product) else product
        if node.mode in ("F32", "F16"):
            reason = f"its mode is {node.mode}"
        if isinstance(product, Product) and reason is None:
            products.append(product)
        elif traits.weight is not None:
            ctx.decline(rule, node, reason or "")
    return products


def check_choice(option: str, given: str, known: Sequence[str]) -> None:
    """Raises QdqcError for an option that is none of the known ones."""
    if given not in known:
        raise QdqcError(
            f"unknown {option} '{given}'{suggestion(given, known)}",
            notes=[f"{option}s are {', '.join(known)}"],
        )
