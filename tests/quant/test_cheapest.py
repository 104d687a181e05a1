"""The least cut is the cheapest placement: held to all placements of random small graphs."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.data import Data
from qdqc.ir.graph import Graph, Module
from qdqc.ir.op import Kind, Op
from qdqc.ir.types import Elem, Range, TensorType
from qdqc.ops import Add, Clip, Conv, MatMul, MaxPool, Mul, Relu, Reshape, Sigmoid, Tanh
from qdqc.quant.cheapest import Prices, cheapest, cost_of, rounded_source
from qdqc.quant.placement import Decision, decide
from qdqc.quant.targets.target import activations, target_named

ORT = target_named("ort-cpu")
SHAPE = (1, 4, 4, 4)
Decisions: TypeAlias = Mapping[Node[Any], Decision]


@dataclass(frozen=True)
class Made:
    """One kind of node: its op, how many values it reads, and the shape of its constant."""

    op: Op
    reads: int = 1
    constant: tuple[int, ...] = ()


KINDS = {
    "conv": Made(Conv(), constant=(4, 4, 1, 1)),
    "matmul": Made(MatMul(), constant=(4, 4)),
    "clamped": Made(MatMul(clamp=(0.0, 6.0)), constant=(4, 4)),
    "add": Made(Add(), reads=2),
    "mul": Made(Mul(), reads=2),
    "relu": Made(Relu()),
    "clip": Made(Clip(min=0.0, max=6.0)),
    "sigmoid": Made(Sigmoid()),
    "pool": Made(MaxPool(kernel_shape=(1, 1))),
    "reshape": Made(Reshape(), constant=(4,)),
    "tanh": Made(Tanh()),
}
"""All give the shape that they read; the last has no integer kernel."""


def graph_of(lines: list[tuple[str, list[int]]], outputs: Collection[int]) -> Graph:
    """Each line is a kind and the values that it reads, 0 being the input; ranges are known."""
    graph = Module("net", {"": 17}).graph
    module = graph.module
    values: list[Value] = [graph.add_input("x", TensorType(Elem.F32, SHAPE))]
    for number, (kind, reads) in enumerate(lines, 1):
        made = KINDS[kind]
        operands = [values[i] for i in reads[: made.reads]]
        if made.constant:
            held = np.array(SHAPE) if kind == "reshape" else np.ones(made.constant, np.float32)
            operands.append(module.add_constant(f"{number}.w", Data.of(held)))
        values.append(graph.insert(made.op, operands, None, [f"{kind}{number}"]).result)
    for value in values:
        value.type = value.tensor.with_range(Range(-4.0, 4.0, 4.0))
    graph.set_outputs([values[i] for i in sorted(outputs)])
    for node in graph.nodes():
        node.mode = "INT8"
    return graph


@st.composite
def graphs(draw: st.DrawFn, kinds: Collection[str] = tuple(KINDS)) -> Graph:
    count = draw(st.integers(1, 7))
    lines: list[tuple[str, list[int]]] = []
    for number in range(count):
        index = st.integers(0, number)
        lines.append((draw(st.sampled_from(sorted(kinds))), [draw(index), draw(index)]))
    returned = draw(st.sets(st.integers(1, count), min_size=1, max_size=2))
    return graph_of(lines, {*returned, count})


@st.composite
def prices_of(draw: st.DrawFn, graph: Graph, able: list[Node[Any]]) -> Prices:
    """Whole numbers, which add up without error."""
    names = [v.name for v in graph.inputs] + [n.name for n in graph.nodes()]
    cast, some = st.integers(0, 12), st.integers(-20, 20)
    pairs: list[tuple[str, str]] = []
    if len(able) > 1:
        one = st.sampled_from([n.name for n in able])
        pairs = draw(st.lists(st.tuples(one, one), max_size=2))
    return Prices(
        {n.name: draw(some) for n in able},
        {n: draw(cast) for n in names},
        {n: draw(cast) for n in names},
        {n: draw(st.integers(0, 9)) for n in names},
        pairs,
    )


def placed(decisions: Decisions, floats: Collection[str]) -> dict[Node[Any], Decision]:
    """The placement with these nodes float, as it is: none follows its neighbours.

    An unclamped product gives integers where all its readers are integer.
    """
    integer = {n for n, d in decisions.items() if d.integer and n.name not in floats}

    def gives(node: Node[Any]) -> bool:
        users, whole = node.result.users, not node.result.is_output
        if isinstance(node.op, MatMul) and (node.op.clamp is None or not whole):
            return whole and bool(users) and all(u in integer for u in users)
        return True

    return {
        n: Decision(n in integer, d.traits, result=n in integer and gives(n))
        for n, d in decisions.items()
    }


def rounding(graph: Graph, decisions: Decisions, prices: Prices) -> float:
    """Elements that are made or read in integers anywhere, each once."""
    rounded: set[str] = set()
    for node, decision in decisions.items():
        if decision.integer:
            taken = (node.operands[i] for i in activations(node, decision.traits))
            values = [v for v in taken if v is not None and not isinstance(v, Constant)]
            values += [node.result] if decision.result else []
            rounded |= {rounded_source(v, decisions) for v in values}
    return sum(prices.rounding.get(name, 0.0) for name in rounded)


def subsets(able: list[Node[Any]], tied: Collection[tuple[str, str]]) -> Iterator[frozenset[str]]:
    """All sets of nodes that may be float, both of a pair or none."""
    names = [n.name for n in able]
    for picks in itertools.product((False, True), repeat=len(names)):
        floats = frozenset(itertools.compress(names, picks))
        if all((a in floats) == (b in floats) for a, b in tied):
            yield floats


@pytest.mark.parametrize("kinds", [tuple(KINDS), ("matmul", "pool", "tanh")], ids=["all", "few"])
@given(data=st.data())
def test_no_placement_is_cheaper(kinds: tuple[str, ...], data: st.DataObject) -> None:
    graph = data.draw(graphs(kinds))
    decisions = decide(graph, ORT)
    able = [n for n, d in decisions.items() if d.integer]
    prices = data.draw(prices_of(graph, able))

    def cost(floats: Collection[str]) -> float:
        found = placed(decisions, floats)
        return cost_of(ORT, found, prices) + rounding(graph, found, prices)

    floats = cheapest(graph, ORT, decisions, prices)
    assert all((a in floats) == (b in floats) for a, b in prices.tied)
    every = {floats: cost(floats) for floats in subsets(able, list(prices.tied))}
    least = [found for found, price in every.items() if price == min(every.values())]
    assert floats == min(least, key=len), "of those that cost the same, that with most integers"


@given(graphs())
def test_all_is_as_placement_has_it_when_nothing_is_float(graph: Graph) -> None:
    """The placements that the cut chooses from begin with the one that ``decide`` finds."""
    decisions = decide(graph, ORT)
    again = placed(decisions, ())
    assert [d.result for d in again.values()] == [d.result for d in decisions.values()]


def priced(graph: Graph, *, floats: Collection[str] = (), **integer: float) -> float:
    """What a placement costs where each cast to integers takes 100, each to float 1000."""
    names = [v.name for v in graph.inputs] + [n.name for n in graph.nodes()]
    prices = Prices(integer, dict.fromkeys(names, 100.0), dict.fromkeys(names, 1000.0))
    modes = {n: "F32" for n in graph.nodes() if n.name in floats}
    return cost_of(ORT, decide(graph, ORT, modes), prices)


def test_a_cast_is_paid_once_for_all_its_readers() -> None:
    graph = graph_of([("conv", [0]), ("conv", [0]), ("add", [1, 2]), ("conv", [3])], {4})
    assert priced(graph) == 100 + 1000, "the input, and what the last gives"
    assert priced(graph, conv1=-7, add3=2) == 1100 - 5
    two = graph_of([("conv", [0]), ("tanh", [1]), ("sigmoid", [1]), ("conv", [1])], {2, 3, 4})
    assert priced(two) == 100 + 2000, "two float readers share one"
    assert priced(graph, floats=["conv1", "conv2", "add3", "conv4"], conv1=-7) == 0


def test_a_value_that_is_returned_is_cast_beside_its_integer_reader() -> None:
    graph = graph_of([("conv", [0]), ("conv", [1])], {1, 2})
    assert priced(graph) == 100 + 2000
    assert priced(graph, floats=["conv2"]) == 100 + 1000
    assert priced(graph, floats=["conv1"]) == 100 + 1000


def test_products_give_floats_for_nothing() -> None:
    chain = graph_of([("matmul", [0]), ("matmul", [1])], {2})
    assert priced(chain) == 100
    assert priced(chain, floats=["matmul2"]) == 100
    both = graph_of([("matmul", [0]), ("matmul", [1]), ("tanh", [1])], {2, 3})
    assert priced(both) == 200, "a float reader: the other one rounds the float result"
    returned = graph_of([("matmul", [0]), ("matmul", [1])], {1, 2})
    assert priced(returned) == 200
    clamped = graph_of([("clamped", [0]), ("tanh", [1])], {2})
    assert priced(clamped) == 1100, "what the clamp saturates is integer"


@pytest.mark.parametrize(("price", "floats"), [(9.0, set[str]()), (11.0, {"matmul2"})])
def test_a_cast_behind_a_product_that_others_read_in_float(price: float, floats: set[str]) -> None:
    """%a is read by a float node as well, so its integers cost the second product a cast."""
    graph = graph_of([("matmul", [0]), ("matmul", [1]), ("tanh", [1])], {2, 3})
    prices = Prices({"matmul1": -50.0, "matmul2": -10.0}, {"x": 1.0, "matmul1": price}, {})
    assert cheapest(graph, ORT, decide(graph, ORT), prices) == floats


def test_nodes_between_float_ones_follow_them() -> None:
    """A pool without a price is where its casts are least."""
    lines = [("conv", [0]), ("pool", [1]), ("conv", [2])]
    graph = graph_of(lines, {3})
    casts = {"x": 5.0, "conv1": 5.0, "pool2": 1.0, "conv3": 5.0}
    decisions = decide(graph, ORT)
    slow = Prices({"conv1": 50.0, "conv3": -20.0}, casts, casts)
    assert cheapest(graph, ORT, decisions, slow) == {"conv1", "pool2"}
    both = Prices({"conv1": 50.0, "conv3": 50.0}, casts, casts)
    assert cheapest(graph, ORT, decisions, both) == {"conv1", "pool2", "conv3"}
    fast = Prices({"conv1": -50.0, "conv3": 4.0}, casts, casts)
    assert cheapest(graph, ORT, decisions, fast) == {"conv3"}, "the cast back moves in front"


def test_rounding_is_paid_once_for_all_that_hold_the_same_elements() -> None:
    graph = graph_of([("conv", [0]), ("pool", [1]), ("conv", [2]), ("conv", [2])], {3, 4})
    decisions = decide(graph, ORT)
    assert [d.traits.kind for d in decisions.values()][1] is Kind.PRESERVING
    integer = {"conv1": -10.0, "conv3": -10.0, "conv4": -10.0}
    for price, floats in ((29.0, set[str]()), (31.0, {"conv1", "pool2", "conv3", "conv4"})):
        prices = Prices(integer, {}, {}, rounding={"conv1": price})
        assert cheapest(graph, ORT, decisions, prices) == floats


def test_tied_nodes_go_together() -> None:
    graph = graph_of([("conv", [0]), ("conv", [0])], {1, 2})
    integer = {"conv1": -10.0, "conv2": 7.0}
    decisions = decide(graph, ORT)
    assert cheapest(graph, ORT, decisions, Prices(integer, {}, {})) == {"conv2"}
    tied = Prices(integer, {}, {}, tied=[("conv1", "conv2")])
    assert cheapest(graph, ORT, decisions, tied) == frozenset()
