"""Random edits against a plain model of what they mean: dictionaries of names and lists."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from qdqc.ir.clone import clone
from qdqc.ir.core import Node, Value
from qdqc.ir.data import Data
from qdqc.ir.graph import Graph, Module
from qdqc.ir.loc import Loc
from qdqc.ir.types import Elem, TensorType
from qdqc.ir.verify import verify
from qdqc.ops.opaque import Opaque
from qdqc.text.parser import parse_module
from qdqc.text.printer import print_module

F = TensorType(Elem.F32, (2,))
OP = Opaque(type="Mix")
NESTING = Opaque(type="Nest", graph_names=("body",))
picks = st.integers(0, 10**6)


class Edits(RuleBasedStateMachine):
    """A flat graph (with bodies that capture) under edits that keep it sound.

    ``order`` holds names of first results, ``reads`` what each node reads, ``held`` what its
    body reads, ``made`` names of all results.
    """

    def __init__(self) -> None:
        super().__init__()
        self.module = Module("edited")
        self.inputs = ["x", "y"]
        for name in self.inputs:
            self.module.graph.add_input(name, F)
        self.constants = ["w"]
        self.module.add_constant("w", Data.elided(Elem.F32, (2,), "00"))
        self.nodes: list[Node[Any]] = []
        self.reads: dict[Node[Any], list[str | None]] = {}
        self.held: dict[Node[Any], list[str]] = {}
        self.made: dict[Node[Any], list[str]] = {}
        self.outputs: list[str] = []
        self.count = 0

    def fresh(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def value(self, name: str | None) -> Value | None:
        return None if name is None else self.module.value(name)

    def need(self, name: str) -> Value:
        found = self.module.value(name)
        assert found is not None
        return found

    def visible(self, place: int) -> list[str]:
        """Names that a node at that place may read."""
        made = [n for node in self.nodes[:place] for n in self.made[node]]
        return [*self.inputs, *self.constants, *made]

    def readers(self, name: str) -> list[Node[Any]]:
        return [n for n in self.nodes if name in self.reads[n] or name in self.held.get(n, ())]

    @rule(place=picks, chosen=st.lists(st.none() | picks, max_size=3), results=st.integers(1, 2))
    def insert(self, place: int, chosen: list[int | None], results: int) -> None:
        place %= len(self.nodes) + 1
        known = self.visible(place)
        operands = [None if c is None else known[c % len(known)] for c in chosen]
        names = [self.fresh() for _ in range(results)]
        before = self.nodes[place] if place < len(self.nodes) else None
        node = self.module.graph.insert(
            OP,
            [self.value(n) for n in operands],
            [F] * results,
            names,
            loc=Loc((names[0],)),
            before=before,
        )
        while operands and operands[-1] is None:
            operands.pop()
        self.nodes.insert(place, node)
        self.reads[node], self.made[node] = operands, names

    @rule(place=picks, captured=picks)
    def insert_with_a_body(self, place: int, captured: int) -> None:
        place %= len(self.nodes) + 1
        known = self.visible(place)
        name = known[captured % len(known)]
        body = Graph(self.module)
        inner = body.insert(OP, [self.value(name)], [F], [self.fresh()])
        body.set_outputs([inner.result])
        names = [self.fresh()]
        before = self.nodes[place] if place < len(self.nodes) else None
        node = self.module.graph.insert(NESTING, [], [F], names, graphs=[body], before=before)
        self.nodes.insert(place, node)
        self.reads[node], self.made[node], self.held[node] = [], names, [name]

    @precondition(lambda self: self.nodes)
    @rule(which=picks)
    def erase(self, which: int) -> None:
        node = self.nodes[which % len(self.nodes)]
        read = [n for n in self.made[node] if self.readers(n) or n in self.outputs]
        if read:
            with pytest.raises(ValueError, match=f"%{read[0]} is still read"):
                self.module.graph.erase(node)
            return
        self.module.graph.erase(node)
        assert all(self.module.value(name) is None for name in self.made[node])
        self.nodes.remove(node)
        del self.reads[node], self.made[node]
        self.held.pop(node, None)

    @precondition(lambda self: any(self.reads[n] for n in self.nodes))
    @rule(which=picks, index=picks, chosen=st.none() | picks)
    def set_operand(self, which: int, index: int, chosen: int | None) -> None:
        able = [n for n in self.nodes if self.reads[n]]
        node = able[which % len(able)]
        index %= len(self.reads[node])
        known = self.visible(self.nodes.index(node))
        name = None if chosen is None else known[chosen % len(known)]
        node.set_operand(index, self.value(name))
        self.reads[node][index] = name
        while self.reads[node] and self.reads[node][-1] is None:
            self.reads[node].pop()

    @precondition(lambda self: self.nodes)
    @rule(which=picks, chosen=picks, keep=st.none() | picks)
    def replace_uses(self, which: int, chosen: int, keep: int | None) -> None:
        """By something that stands before it, so that order still holds."""
        node = self.nodes[which % len(self.nodes)]
        name = self.made[node][0]
        known = self.visible(self.nodes.index(node))
        other = known[chosen % len(known)]
        kept = [] if keep is None else [self.nodes[keep % len(self.nodes)]]
        self.need(name).replace_uses(self.need(other), keep=kept)
        for reader in self.nodes:
            if reader not in kept:
                self.reads[reader] = [other if n == name else n for n in self.reads[reader]]
            if reader in self.held:  # the body's node is another one than the kept
                self.held[reader] = [other if n == name else n for n in self.held[reader]]
        self.outputs = [other if n == name else n for n in self.outputs]

    @precondition(lambda self: self.nodes)
    @rule(which=picks, place=picks)
    def move(self, which: int, place: int) -> None:
        """To any place between what it reads and what reads it."""
        index = which % len(self.nodes)
        node = self.nodes[index]
        needs = {n for n in [*self.reads[node], *self.held.get(node, ())] if n}
        first = max((i + 1 for i, n in enumerate(self.nodes) if needs & {*self.made[n]}), default=0)
        readers = [r for name in self.made[node] for r in self.readers(name)]
        last = min((self.nodes.index(r) for r in readers), default=len(self.nodes))
        others = [n for n in self.nodes[first:last] if n is not node]
        targets: list[Node[Any] | None] = [*others]
        targets.append(self.nodes[last] if last < len(self.nodes) else None)
        target = targets[place % len(targets)]
        self.module.graph.move(node, target)
        self.nodes.remove(node)
        self.nodes.insert(len(self.nodes) if target is None else self.nodes.index(target), node)

    @rule(which=picks, taken=st.none() | picks)
    def rename(self, which: int, taken: int | None) -> None:
        names = self.visible(len(self.nodes))
        old = names[which % len(names)]
        new = self.fresh() if taken is None else names[taken % len(names)]
        if new in names and new != old:
            with pytest.raises(ValueError, match=f"'%{new}' is taken"):
                self.need(old).rename(new)
            return
        self.need(old).rename(new)

        def renamed(found: list[Any]) -> list[Any]:
            return [new if n == old else n for n in found]

        self.inputs, self.constants = renamed(self.inputs), renamed(self.constants)
        self.outputs = renamed(self.outputs)
        for held in (self.reads, self.made, self.held):
            for node, found in held.items():
                held[node] = renamed(found)

    @rule(chosen=st.lists(picks, max_size=3))
    def set_outputs(self, chosen: list[int]) -> None:
        known = self.visible(len(self.nodes))
        self.outputs = [known[c % len(known)] for c in chosen]
        self.module.graph.set_outputs([self.need(n) for n in self.outputs])

    @rule()
    def go_on_with_a_copy(self) -> None:
        copy = clone(self.module)
        assert copy == self.module
        places = dict(zip(self.nodes, copy.graph.nodes(), strict=True))
        self.module, self.nodes = copy, list(places.values())
        self.reads = {places[n]: found for n, found in self.reads.items()}
        self.made = {places[n]: found for n, found in self.made.items()}
        self.held = {places[n]: found for n, found in self.held.items()}

    @invariant()
    def the_verifier_finds_nothing(self) -> None:
        assert [d.message for d in verify(self.module)] == []

    @invariant()
    def graph_and_model_agree(self) -> None:
        assert list(self.module.graph.nodes()) == self.nodes
        assert len(self.module.graph) == len(self.nodes)
        for node in self.nodes:
            assert [v.name for v in node.present_results] == self.made[node]
            assert [v.name if v else None for v in node.operands] == self.reads[node]
            assert [v.name for v in node.captures()] == [
                n for n in self.held.get(node, ()) if n not in self.constants
            ]
        assert [v.name for v in self.module.graph.outputs] == self.outputs

    @invariant()
    def uses_count_what_is_read(self) -> None:
        for name in self.visible(len(self.nodes)):
            read = sum(self.reads[n].count(name) for n in self.nodes)
            read += sum(found.count(name) for found in self.held.values())
            value = self.need(name)
            assert len(value.uses) == read + self.outputs.count(name)
            assert value.is_output == (name in self.outputs)
            assert value.is_used == bool(value.uses)

    def teardown(self) -> None:
        text = print_module(self.module)
        assert print_module(parse_module(text, verify=True)) == text


Edits.TestCase.settings = settings(max_examples=80, stateful_step_count=25, deadline=None)
TestEdits = Edits.TestCase
