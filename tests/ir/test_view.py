"""What networkx says of a graph."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdqc.ir.core import Node
from qdqc.ir.data import Data
from qdqc.ir.graph import Graph, Module
from qdqc.ir.op import OPS, Op
from qdqc.ir.types import Elem, TensorType
from qdqc.ir.view import (
    convex_hull,
    cut_values,
    dominators,
    find_cycle,
    is_convex,
    region_inputs,
    region_outputs,
    to_dot,
    to_networkx,
    topological_order,
)

F = TensorType(Elem.F32, (1,))
Mix: Any = None


@pytest.fixture(scope="module", autouse=True)
def _ops():
    with OPS.scratch():

        class _Mix(Op):
            name, operands = "test.mix", ("xs*",)

        globals().update(Mix=_Mix)
        yield


def build(edges: dict[str, list[str]], outputs: list[str]) -> tuple[Module, dict[str, Node[Any]]]:
    """A graph from names of nodes and what they read; ``x`` is the input."""
    module = Module()
    module.graph.add_input("x", F)
    module.add_constant("w", Data.of(np.zeros(1, np.float32)))
    nodes: dict[str, Node[Any]] = {}
    for name, reads in edges.items():
        operands = [module.value(r) for r in reads]
        nodes[name] = module.graph.insert(Mix(), operands, [F], [name])
    module.graph.set_outputs([nodes[n].result for n in outputs])
    return module, nodes


DIAMOND = {"a": ["x", "w"], "b": ["a"], "c": ["a"], "d": ["b", "c", "w"], "e": ["d"]}


def test_edges_carry_their_value():
    module, n = build(DIAMOND | {"f": ["e", "e"]}, ["f"])
    view = to_networkx(module.graph)
    assert set(view) == set(n.values())
    assert view.nodes[n["a"]]["op"] == "test.mix"
    edges = {(p.name, r.name): v.name for p, r, v in view.edges(data="value")}
    assert edges[("b", "d")] == "b"
    assert len(edges) == 6


def test_captures_are_edges():
    module, n = build(DIAMOND, ["e"])
    inner = Graph(module)
    inside = inner.insert(Mix(), [n["b"].result], [F], ["in"])
    inner.set_outputs([inside.result])
    outer = module.graph.insert(Mix(), [], [F], ["if"], graphs=[inner])
    assert to_networkx(module.graph).has_edge(n["b"], outer)
    assert region_outputs([n["b"], outer]) == [n["b"].result]
    assert region_inputs([outer]) == [n["b"].result]


def test_dominators():
    module, _ = build(DIAMOND, ["e"])
    found = dominators(module.graph)
    names = {k.name: v.name if v else None for k, v in found.items()}
    assert names == {"a": None, "b": "a", "c": "a", "d": "a", "e": "d"}
    assert dominators(Module().graph) == {}


def test_a_second_way_in_undoes_dominance():
    module, n = build(DIAMOND | {"f": ["e", "x"]}, ["f"])
    assert dominators(module.graph)[n["f"]] is None


def test_cuts():
    module, _ = build(DIAMOND | {"f": ["e", "d"], "g": ["f"]}, ["g"])
    assert [v.name for v in cut_values(module.graph)] == ["a", "d", "f"]
    skipped, _ = build({"a": ["x"], "b": ["a", "x"], "c": ["b"]}, ["c"])
    assert [v.name for v in cut_values(skipped.graph)] == ["b"]
    early, _ = build({"a": ["x"], "b": ["a"], "c": ["b"]}, ["a", "c"])
    assert [v.name for v in cut_values(early.graph)] == ["a"]


def test_convex_regions():
    _, n = build(DIAMOND, ["e"])
    assert is_convex([n["b"], n["c"]])
    assert is_convex([n["a"], n["b"]])
    assert not is_convex([n["a"], n["d"]])
    assert convex_hull([n["a"], n["d"]]) == {n[k] for k in "abcd"}
    assert not is_convex([n["b"], n["e"]])
    assert is_convex([])


def test_inputs_and_outputs_of_a_region():
    _, n = build(DIAMOND, ["e", "b"])
    region = [n["b"], n["c"], n["d"]]
    assert [v.name for v in region_inputs(region)] == ["a", "w"]
    assert [v.name for v in region_outputs(region)] == ["b", "d"]


@st.composite
def graphs(draw: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for index in range(draw(st.integers(1, 12))):
        known = ["x", *found]
        found[f"n{index}"] = draw(st.lists(st.sampled_from(known), max_size=3))
    return found


@settings(max_examples=60, deadline=None)
@given(graphs(), st.data())
def test_convexity_is_that_no_path_leaves_and_returns(edges: dict[str, list[str]], data: Any):
    module, n = build(edges, [])
    chosen = set(data.draw(st.lists(st.sampled_from(list(n)), min_size=1, max_size=4)))
    view = networkx.DiGraph(to_networkx(module.graph))
    hull = {
        node.name
        for node in view
        if node.name in chosen
        or (
            any(networkx.has_path(view, n[c], node) for c in chosen)
            and any(networkx.has_path(view, node, n[c]) for c in chosen)
        )
    }
    assert {node.name for node in convex_hull(n[c] for c in chosen)} == hull


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.integers(0, 8), st.lists(st.integers(0, 8), max_size=3), max_size=9))
def test_cycles_of_plain_edges(readers: dict[int, list[int]]):
    view = networkx.DiGraph([(k, r) for k, found in readers.items() for r in found])
    cycle = find_cycle(readers)
    assert bool(cycle) != networkx.is_directed_acyclic_graph(view)
    for key, following in zip(cycle, [*cycle[1:], *cycle[:1]], strict=True):
        assert following in readers[key]
    if not cycle:
        order = topological_order(readers)
        place = {key: index for index, key in enumerate(order)}
        assert all(place[k] < place[r] for k, found in readers.items() for r in found)
    else:
        with pytest.raises(ValueError, match=r"these form a cycle: \d.* -> "):
            topological_order(readers)


def test_order_is_stable_and_cycles_are_named():
    assert topological_order({"b": [], "a": [], "c": ["b"]}) == ["a", "c", "b"]
    with pytest.raises(ValueError, match="these form a cycle: a -> b -> a"):
        topological_order({"a": ["b"], "b": ["a"]})


def test_long_chains_need_no_recursion():
    readers = {index: [index + 1] for index in range(50_000)}
    assert find_cycle(readers) == []


def test_dot():
    module, n = build({"a": ["x", "w"], 'b"q': ["a"]}, ['b"q'])
    assert to_dot(module.graph, {n["a"]: "red"}).splitlines() == [
        "digraph {",
        "  node [shape=box fontname=monospace];",
        '  in0 [shape=ellipse label="x"];',
        '  n0 [label="test.mix\\na" style=filled fillcolor="red"];',
        '  n1 [label="test.mix\\nb\\"q"];',
        '  out0 [shape=ellipse label="b\\"q"];',
        '  in0 -> n0 [label="f32[1]"];',
        '  n0 -> n1 [label="f32[1]"];',
        '  n1 -> out0 [label="f32[1]"];',
        "}",
    ]


def test_networkx_is_loaded_when_it_is_needed():
    code = "import qdqc.ir.view, sys; assert 'networkx' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
