"""What a search looks at, by hand on small networks."""

from __future__ import annotations

import pytest
from search_nets import Net, attention, branches, residual, samples_of, table_of

from qdqc.flow.deploy import deploy
from qdqc.ir.graph import Module
from qdqc.ir.op import Kind
from qdqc.ir.types import Elem, Range
from qdqc.ops import Add, Concat, MaxPool, Sigmoid
from qdqc.quant.arithmetic import activation_quant
from qdqc.quant.deployment import Deployment
from qdqc.quant.qtable import Qtable
from qdqc.search.trials.layers import Layers, ranges_of
from qdqc.search.trials.mixed_models import MixedModels


def layers_of(module: Module, *, symmetric: bool = False) -> Layers:
    table = table_of(module, samples_of(module))
    return Layers(MixedModels(module, Deployment(symmetric=symmetric)), table)


def found(module: Module) -> dict[str, tuple[bool, tuple[str, ...], tuple[str, ...]]]:
    """By key: whether it is integer, its ranged values, and who reads it in integers."""
    return {
        layer.key: (
            layer.integer,
            tuple(v.name for v in layer.ranged),
            tuple(n.name for n in layer.readers),
        )
        for layer in layers_of(module).every
    }


def test_a_chain_of_convolutions() -> None:
    seen = found(residual())
    assert seen["values of x"] == (False, ("x",), ("a",)), "the input is rounded where a reads it"
    assert [k for k, (integer, *_) in seen.items() if integer] == list("abcsdpfy")
    assert seen["f"] == (True, (), ()), "what only moves elements has no range of its own"
    assert seen["y"] == (True, (), ()), "logits stay float"
    assert all(seen[n][1] == (n,) for n in "abcsdp")


def test_products_with_float_results() -> None:
    seen = found(attention())
    assert [k for k, (integer, *_) in seen.items() if integer] == ["q", "u", "w"]
    assert seen["values of s"] == (False, ("s",), ("u",))
    assert seen["values of up"] == (False, ("up",), ("w",))
    assert "values of soft" not in seen, "nothing reads it in integers"


def test_an_op_that_bounds_its_result_needs_no_range() -> None:
    layers = layers_of(branches())
    gate = next(x for x in layers.every if x.name == "g")
    assert gate.integer
    assert gate.ranged == ()
    (quant,) = layers.own_quants(gate, {})
    assert quant == activation_quant(Range(0.0, 1.0, 1.0), Elem.U8)


@pytest.mark.parametrize("symmetric", [False, True])
def test_scales_are_those_of_the_deployed_model(symmetric: bool) -> None:
    module = residual()
    layers = layers_of(module, symmetric=symmetric)
    table = table_of(module, samples_of(module))
    lowered = layers.models.lowered(table)
    ranges = ranges_of(layers.planned)
    for name in "abcsd":
        layer = next(x for x in layers.integer if x.name == name)
        (quant,) = layers.own_quants(layer, ranges)
        stored = lowered.value(f"{name}_q")
        assert stored is not None
        assert stored.tensor.quant == quant


def test_groups_are_what_placement_takes_out_together() -> None:
    """conv, conv -> concat -> pool -> conv: without the last product none of them pays."""
    net = Net(1, 4, 8, 8, seed=4)
    a, b = net.conv("a", net.x, 4), net.conv("b", net.x, 4)
    joined = net.op("cat", Concat(axis=1), a, b)
    pool = net.op("pool", MaxPool(kernel_shape=(2, 2), strides=(2, 2)), joined)
    module = net.returns(net.conv("y", pool, 3))
    layers = layers_of(module)
    assert layers.moved_with(frozenset({"y"})) == {"y", "cat", "pool"}
    assert layers.moved_with(frozenset({"a"})) == {"a"}, "the other branch still brings integers"
    assert layers.moved_with(frozenset({"a", "b"})) == {"a", "b", "cat", "pool"}
    assert frozenset({"a", "cat"}) in layers.neighbours()


def test_asking_changes_no_mode() -> None:
    layers = layers_of(residual())
    before = {n.name: n.mode for n in layers.planned.graph.nodes()}
    layers.decided(frozenset({"a", "b"}))
    layers.parts_with(frozenset({"s"}))
    assert {n.name: n.mode for n in layers.planned.graph.nodes()} == before


def test_the_parts_of_a_mixed_model() -> None:
    layers = layers_of(residual())
    whole = set(layers.parts_with(frozenset()))
    assert whole == {f"values {n}" for n in "xabcsdp"} | {f"weights {n}" for n in "abcdy"}
    without = set(layers.parts_with(frozenset({"b"})))
    assert whole - without == {"weights b"}, "its neighbours are rounded at their borders"
    pair = set(layers.parts_with(frozenset({"b", "c"})))
    assert whole - pair == {"weights b", "weights c", "values b"}
    assert layers.parts_with(frozenset("abcsdpfy")) == []


def test_a_layer_knows_how_quantization_sees_its_node() -> None:
    layers = layers_of(branches())
    kinds = {layer.name: layers.kind(layer) for layer in layers.every if layer.integer}
    assert kinds["a"] is Kind.WEIGHTED
    assert kinds["m"] is Kind.ARITHMETIC
    assert isinstance(layers.integer[0].node.op, object)
    gate = next(x for x in layers.every if x.name == "g")
    assert gate.node is not None
    assert isinstance(gate.node.op, Sigmoid)
    assert layers.kind(layers.every[0]) is None, "the input"


def test_what_stays_float_for_its_time_does_so_whatever_else_is_float() -> None:
    """Mixed models are as the layers foretell them: no mode of one layer moves another's."""
    net = Net(1, 1, 112, 112, seed=6)
    thin = net.conv("thin", net.x, 16, strides=(2, 2))
    a = net.conv("a", thin, 64, 1)
    b = net.op("s", Add(), net.conv("b", a, 64), a)
    c = net.conv("c", net.conv("narrow", b, 64, group=32), 64)
    module = net.returns(net.conv("y", c, 64, 1))
    layers = layers_of(module)
    integer = {layer.name for layer in layers.integer}
    assert {"a", "b", "c"} <= integer
    assert not {"thin", "narrow"} & integer
    table = table_of(module, samples_of(module))
    for name in integer:
        foretold = {n.name for n, d in layers.decided(frozenset({name})).items() if d.integer}
        decisions = deploy(module, table=table, qtable=Qtable.of({name: "F32"})).decisions
        assert {n for n, d in decisions.items() if d.integer} == foretold
