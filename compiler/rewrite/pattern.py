"""Pattern passes: typed rules that rewrite one node at a time and say why they declined."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from qdqc.ir.graph import Graph
from qdqc.ir.op import Op
from qdqc.pipeline.pass_ import Pass, PassContext
from qdqc.rewrite.driver import apply
from qdqc.rewrite.rewriter import Result, Rewriter, Rule

__all__ = ["PatternPass", "Result", "Rewriter", "Rule", "rewrites"]

F = TypeVar("F", bound=Callable[..., Any])


def rewrites(*ops: type[Op]) -> Callable[[F], F]:
    """Mark a method of a PatternPass as the rule for nodes of these ops.

    The method gets the node and a Rewriter. It returns the value (or the values) that take the
    place of the node's results, or None when it does not match. Guards come first, each with
    its reason; nothing is created before the last guard.
    """

    def mark(method: F) -> F:
        setattr(method, "rewrites_ops", ops)  # noqa: B010 - functions take attributes
        return method

    return mark


class PatternPass(Pass):
    """A pass made of rules; the driver applies them until none matches any more."""

    rules: ClassVar[tuple[tuple[type[Op], str], ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        rules: dict[tuple[type[Op], str], None] = dict.fromkeys(cls.rules)
        for name, member in vars(cls).items():
            for op in getattr(member, "rewrites_ops", ()):
                rules[op, name] = None
        cls.rules = tuple(rules)

    def run(self, graph: Graph, ctx: PassContext) -> int:
        rules = [(op, name, getattr(self, name)) for op, name in self.rules]
        return apply(rules, graph, ctx)
