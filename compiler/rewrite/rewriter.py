"""What a rule works with: it makes nodes and constants, and says why it declines."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.data import Data
from qdqc.ir.graph import Graph
from qdqc.ir.op import Op
from qdqc.ir.types import Array, Elem, TensorType, Type
from qdqc.pipeline.pass_ import Mismatch, PassContext

__all__ = ["Result", "Rewriter", "Rule"]

Result: TypeAlias = Value | Sequence[Value | None] | None
Rule: TypeAlias = Callable[[Node[Any], "Rewriter"], Result]


class Rewriter:
    """What a rule works with: creates nodes before ``root`` and constants in its module."""

    def __init__(self, root: Node[Any], rule: str, ctx: PassContext) -> None:
        self.root = root
        self.rule = rule
        self.ctx = ctx
        self.created: list[Node[Any]] = []
        self.constants: list[Constant] = []
        self.typed: set[Node[Any]] = set()
        self.moved: set[Node[Any]] = set()

    def op(
        self,
        op: Op,
        *operands: Value | None,
        name: str | None = None,
        type: Type | None = None,
        mode: str | None = None,
    ) -> Value:
        """A node with one result, before the root; its type is inferred unless given.

        The node that gives the rule's result is renamed to the root's name by the driver;
        ``name`` is for inner ones. Raises ValueError where the operands do not fit.
        """
        types = None if type is None else [type]
        return self.node(op, operands, types, [name], mode=mode).result

    def node(
        self,
        op: Op,
        operands: Sequence[Value | None],
        types: Sequence[Type | None] | None = None,
        names: Sequence[str | None] = (),
        *,
        mode: str | None = None,
    ) -> Node[Any]:
        """A node with any number of results, before the root."""
        module = self.root.graph.module
        base = names[0] if names and names[0] else f"{self.root.name}_{op.name}"
        needed = [s for s in op.result_specs if not s.optional]
        count = len(types) if types is not None else len(needed)
        given = [module.fresh_name(n) for n in [base, *(f"{base}_{i}" for i in range(1, count))]]
        node = self.root.graph.insert(
            op,
            operands,
            types,
            given,
            loc=self.root.loc,
            mode=mode if mode is not None else self.root.mode,
            before=self.root,
        )
        self.created.append(node)
        if types is not None:
            self.typed.add(node)
        return node

    def inline(self, graph: Graph, given: Sequence[Value]) -> list[Value]:
        """The outputs of a nested graph of the root, whose nodes now stand before the root.

        ``given`` takes the place of the graph's inputs. The nodes keep names and locations;
        the driver erases those that nobody reads.
        """
        for value, operand in zip(graph.inputs, given, strict=True):
            value.replace_uses(operand)
        outputs = list(graph.outputs)
        graph.set_outputs(())
        for node in graph.nodes():
            self.root.graph.move(node, before=self.root)
            self.created.append(node)
            self.moved.add(node)
        self.typed |= self.moved
        return outputs

    def constant(
        self, array: npt.ArrayLike, name: str | None = None, elem: Elem | None = None
    ) -> Constant:
        """A new constant; ``name`` is a wish, the root's name with a suffix by default."""
        module = self.root.graph.module
        wish = name if name is not None else f"{self.root.name}_const"
        made = module.add_constant(module.fresh_name(wish), Data.of(np.asarray(array), elem))
        self.constants.append(made)
        return made

    def array(self, value: Value | None) -> Array | None:
        """The numbers of a constant; None for anything else, for elided and quantized weights."""
        if not isinstance(value, Constant) or value.data.is_elided:
            return None
        if value.tensor.quant is not None:
            return None
        return value.data.array()

    def no(self, reason: str, value: Value | None = None) -> None:
        """Decline, with the reason and the value at fault. Returns None, to be returned."""
        if self.ctx.mismatches is None:
            return
        frame = inspect.currentframe()
        caller = None if frame is None else frame.f_back
        depth = 0 if caller is None else caller.f_lineno  # guards stand in order of their lines
        root = self.root
        text = None if value is None else repr(value)
        self.ctx.mismatches.append(
            Mismatch(self.rule, root.name, root.op.name, reason, depth, root.loc, text)
        )

    def only_use(self, value: Value) -> bool:
        """Whether the root alone reads the value, once, in the graph that makes it.

        A value of an outer graph does not count: what makes it would move into the nested
        graph, into each round of a loop.
        """
        return len(value.uses) == 1 and not value.is_output and value.graph is self.root.graph

    def tensor(self, value: Value) -> TensorType:
        """The value's type. Raises TypeError when it is not a tensor."""
        return value.tensor
