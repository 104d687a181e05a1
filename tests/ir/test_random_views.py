"""Views of random graphs against what networkx and plain search say of them."""

from __future__ import annotations

import itertools
from typing import Any

import networkx
from hypothesis import given, settings
from hypothesis import strategies as st

from qdqc.ir.core import Node, Value
from qdqc.ir.graph import Graph, Module
from qdqc.ir.types import Elem, TensorType
from qdqc.ir.view import (
    convex_hull,
    cut_values,
    dominators,
    is_convex,
    reads,
    region_inputs,
    region_outputs,
    to_dot,
    to_networkx,
    topological_order,
)
from qdqc.ops.opaque import Opaque

F = TensorType(Elem.F32, (2,))
MIX = Opaque(type="Mix")
NEST = Opaque(type="Nest", graph_names=("body",))


@st.composite
def modules(draw: Any, connected: bool = False) -> Module:
    """A graph of up to ten nodes, some with two results, some that capture in a body."""
    module = Module()
    held: list[Value] = [module.graph.add_input("x", F)]
    if not connected:
        held.append(module.graph.add_input("y", F))
    for index in range(draw(st.integers(1, 10))):
        chosen = draw(st.lists(st.sampled_from(held), min_size=int(connected), max_size=3))
        body: list[Graph] = []
        if not connected and draw(st.integers(0, 4)) == 0:
            inner = Graph(module)
            captured = draw(st.lists(st.sampled_from(held), max_size=2))
            made = inner.insert(MIX, captured, [F], [f"i{index}"])
            inner.set_outputs([made.result])
            body = [inner]
        names = [f"n{index}", f"m{index}"][: draw(st.integers(1, 2))]
        node = module.graph.insert(
            NEST if body else MIX, chosen, [F] * len(names), names, graphs=body
        )
        held += node.present_results
    module.graph.set_outputs(draw(st.lists(st.sampled_from(held), max_size=3)))
    return module


def some_nodes(draw: Any, module: Module) -> list[Node[Any]]:
    nodes = list(module.graph.nodes())
    return draw(st.lists(st.sampled_from(nodes), unique=True, max_size=5))


@settings(max_examples=60, deadline=None)
@given(modules())
def test_the_view_has_an_edge_for_each_value_that_a_node_reads(module: Module):
    view = to_networkx(module.graph)
    assert list(view) == list(module.graph.nodes())
    assert networkx.is_directed_acyclic_graph(view)
    edges = {(a, b, v) for a, b, v in view.edges(data="value")}
    expected = {
        (v.producer, n, v) for n in module.graph.nodes() for v in reads(n) if v.producer is not None
    }
    assert edges == expected
    assert view.number_of_edges() == len(expected)


@settings(max_examples=60, deadline=None)
@given(modules())
def test_order_of_the_graph_is_an_order_of_the_view(module: Module):
    view = to_networkx(module.graph)
    readers = {n: list(dict.fromkeys(view.successors(n))) for n in view}
    assert topological_order(readers) == list(module.graph.nodes())


@settings(max_examples=80, deadline=None)
@given(modules())
def test_a_dominator_is_on_every_way_from_the_inputs(module: Module):
    """Without the node there is no way left; of all such nodes it is the last one."""
    view = networkx.DiGraph(to_networkx(module.graph))
    ways = [n for n in view if not view.in_degree(n) or any(v.is_input for v in reads(n))]
    nodes = list(module.graph.nodes())

    def reached(without: Node[Any] | None) -> set[Node[Any]]:
        found: set[Node[Any]] = set()
        left = view.subgraph([n for n in nodes if n is not without])
        for way in ways:
            if way is not without:
                found |= {way} | networkx.descendants(left, way)
        return found

    cut_off = {d: set(nodes) - reached(d) - {d} for d in nodes}
    for node, found in dominators(module.graph).items():
        strict = [d for d in nodes if node in cut_off[d]]
        assert found is (strict[-1] if strict else None)


@settings(max_examples=80, deadline=None)
@given(modules(connected=True))
def test_a_cut_is_all_that_crosses_a_place_in_the_order(module: Module):
    nodes = list(module.graph.nodes())
    crossing: list[Value] = []
    for place in range(1, len(nodes)):
        before, after = nodes[:place], nodes[place:]
        made = [*module.graph.inputs, *(r for n in before for r in n.present_results)]
        needed = {v for n in after for v in reads(n)} | set(module.graph.outputs)
        alive = [v for v in made if v in needed]
        if len(alive) == 1 and not alive[0].is_input:
            crossing.append(alive[0])
    assert cut_values(module.graph) == list(dict.fromkeys(crossing))


@settings(max_examples=60, deadline=None)
@given(modules(), st.data())
def test_inputs_and_outputs_bound_a_region(module: Module, data: Any):
    region = some_nodes(data.draw, module)
    made = {r for n in region for r in n.present_results}
    inputs, outputs = region_inputs(region), region_outputs(region)
    assert set(inputs) == {v for n in region for v in reads(n)} - made
    outside = [n for n in module.graph.nodes() if n not in region]
    wanted = {v for n in outside for v in reads(n)} | set(module.graph.outputs)
    assert set(outputs) == made & wanted
    assert len(inputs) == len(set(inputs))
    assert len(outputs) == len(set(outputs))


@settings(max_examples=60, deadline=None)
@given(modules(), st.data())
def test_the_hull_is_the_smallest_convex_set(module: Module, data: Any):
    region = some_nodes(data.draw, module)
    hull = convex_hull(region)
    assert hull >= set(region)
    assert convex_hull(hull) == hull
    assert is_convex(hull)
    for node in hull - set(region):
        assert not is_convex(hull - {node}), "each added node is needed"


@settings(max_examples=60, deadline=None)
@given(modules(), st.data())
def test_a_convex_region_can_become_one_node(module: Module, data: Any):
    """Contracting it leaves no cycle, exactly when it is convex."""
    region = some_nodes(data.draw, module)
    view = networkx.DiGraph(to_networkx(module.graph))
    for first, other in itertools.pairwise(region):
        view = networkx.contracted_nodes(view, other, first, self_loops=False)
    assert networkx.is_directed_acyclic_graph(view) == is_convex(region)


@settings(max_examples=30, deadline=None)
@given(modules(), st.data())
def test_dot_shows_each_node_and_each_edge_once(module: Module, data: Any):
    marked = some_nodes(data.draw, module)
    text = to_dot(module.graph, dict.fromkeys(marked, "0.1 0.5 0.9"))
    view = to_networkx(module.graph)
    inputs = sum(v.is_input for n in view for v in reads(n))
    assert text.count(" -> ") == view.number_of_edges() + inputs + len(module.graph.outputs)
    assert text.count("style=filled") == len(marked)
    for node in view:
        assert text.count(f'"onnx\\n{node.name}"') == 1
