"""Cuts a module at values, so that each is computed from given numbers and not from its own.

What a value then differs by between two modules is what its own nodes do: the error of all that
came before it is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy.typing as npt

from qdqc.ir.clone import clone
from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.graph import Module
from qdqc.ops import Quantize
from qdqc.rewrite.driver import erase_dead
from qdqc.runtime.sessions.session import Feeds, Runner

__all__ = ["ForcedRunner"]


class ForcedRunner:
    """A module whose values of these names are given to their readers, and computed beside.

    Names that are not those of results of the top graph's nodes, or that hold no tensors, are
    left out of ``names``. Raises QdqcError where onnxruntime refuses the module.
    """

    def __init__(self, module: Module, names: Iterable[str]) -> None:
        cut = clone(module)
        graph = cut.graph
        made = [cut.value(n) for n in dict.fromkeys(names)]
        values = [v for v in made if v is not None and _is_cut(v, cut)]
        first = next(graph.nodes(), None)
        self.names = [v.name for v in values]
        self._given: dict[str, str] = {v.name: v.name for v in graph.inputs}
        for value in values:
            self._given[value.name] = _give(value, first)
        graph.set_outputs(values)
        erase_dead(reversed(list(graph.nodes())))
        cut.drop_unused_constants()
        self._runner = Runner(cut)

    def run(self, given: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """What the nodes make of each value when its readers' inputs are those that are given.

        ``given`` has the graph's inputs and the cut values by name, as float numbers.
        """
        needed = set(self._runner.inputs)
        feeds: Feeds = {x: given[n] for n, x in self._given.items() if x in needed}
        return self._runner.run(feeds)


def _is_cut(value: Value, module: Module) -> bool:
    return not isinstance(value, Constant) and value.graph is module.graph and not value.is_input


def _give(value: Value, first: Node[Any] | None) -> str:
    """Let a new input stand for the value wherever it is read; the input's name."""
    graph, module, tensor = value.module.graph, value.module, value.tensor
    source = graph.add_input(module.fresh_name(f"{value.name}_given"), tensor.expressed())
    name = source.name
    if tensor.quant is not None:
        source = graph.insert(Quantize(), [source], [tensor], before=first).result
    value.replace_uses(source)
    return name
