"""Where a module is cut: the pieces join to the whole, and begin at values that may be kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from search_nets import NETS, Net, attention, residual, samples_of, table_of

from qdqc.ir.dims import symbol
from qdqc.ir.graph import Module
from qdqc.ir.types import Elem, TensorType
from qdqc.ops import Add, Flatten, Relu, Reshape
from qdqc.runtime.sessions.session import Runner
from qdqc.runtime.sessions.shared_weights import Weights
from qdqc.search.trials.cut import Cuts, open_batch, piece_of
from qdqc.search.trials.kept import Kept
from qdqc.search.trials.layers import Layers
from qdqc.search.trials.mixed_models import MixedModels


def cuts_of(module: Module) -> tuple[Layers, Cuts]:
    layers = Layers(MixedModels(module), table_of(module, samples_of(module)))
    return layers, Cuts(layers.planned, [v.name for v in module.graph.outputs])


def kept_names(module: Module) -> set[str]:
    _, cuts = cuts_of(module)
    values = (r for n in cuts.graph.nodes() for r in n.present_results)
    return {v.name for v in values if cuts.is_kept(v) and not v.is_output}


def test_what_may_be_fused_is_not_kept() -> None:
    """``a`` and ``c`` are added, ``d`` is pooled, the pool is flattened; ``b`` and ``s`` stand."""
    assert kept_names(residual()) == {"b", "s"}


def test_values_without_images_are_kept_where_several_read_them() -> None:
    """``up`` stands between products; ``s`` is read twice, ``soft`` by an Add alone."""
    assert kept_names(attention()) == {"s", "up"}


def test_a_value_without_the_batch_in_front_is_not_kept() -> None:
    net = Net(symbol("N"), 4, 8, 8)
    a = net.conv("a", net.x, 4)
    flat = net.op("flat", Flatten(axis=2), a)  # [4*N, 64]
    net.gemm("y1", flat, 64, 3)
    module = net.returns(net.gemm("y2", flat, 64, 3))
    assert "flat" not in kept_names(module)


def test_head_and_tail_make_the_whole(net: Module) -> None:
    """In float, the head's values put into the tail give the outputs of the module."""
    layers, cuts = cuts_of(net)
    sample = samples_of(net)[0]
    every = [v.name for v in net.graph.outputs]
    exact = Runner(net, optimise="off", threads=1).run(sample)
    names = [r.name for n in layers.planned.graph.nodes() for r in n.present_results]
    values = {**sample, **Runner(layers.planned, names, optimise="off", threads=1).run(sample)}
    for layer in layers.every:
        head, tail = cuts.head(layer), cuts.tail(layer)
        first = Runner(piece_of(layers.planned, head), optimise="off", threads=1)
        made = first.run({n: values[n] for n in head.inputs})
        second = Runner(piece_of(layers.planned, tail), optimise="off", threads=1)
        feeds = {n: values[n] for n in tail.inputs if n in values}
        own = {tail.instead.get(v.name, v.name): made[v.name] for v in layer.values}
        found = second.run({**feeds, **own})
        for name in every:
            np.testing.assert_allclose(found[name], exact[name], rtol=1e-5, atol=1e-5)


def test_pieces_begin_at_kept_values_and_inputs_alone(net: Module) -> None:
    layers, cuts = cuts_of(net)
    kept = {v.name for v in layers.planned.graph.inputs} | kept_names(net)
    for layer in layers.every:
        assert set(cuts.needs(layer)) <= kept
        own = {v.name for v in layer.values}
        assert set(cuts.tail(layer).inputs) <= kept | own


def test_what_others_read_too_is_given_out_as_well() -> None:
    """``a`` is computed anew for the Add behind ``b``, which is no part of that tail."""
    layers, cuts = cuts_of(residual())
    layer = next(x for x in layers.every if x.name == "b")
    tail = cuts.tail(layer)
    assert tail.beside == ("a",)
    assert [v.name for v in piece_of(layers.planned, tail).graph.outputs] == ["y", "a"]


def test_an_open_batch_takes_rows_behind_one_another() -> None:
    net = Net(1, 4, 4, 4)
    a = net.conv("a", net.x, 4)
    shape = net.module.add_constant("shape", _shape(1, 64))
    module = net.returns(net.gemm("y", net.op("r", Reshape(), a, shape), 64, 3))
    rows = np.random.default_rng(0).normal(size=(5, 4, 4, 4)).astype(np.float32)
    plain = Runner(module, optimise="off", threads=1)
    expected = np.concatenate([plain.run({"x": row[None]})["y"] for row in rows])
    open_batch(module, [])
    found = Runner(module, optimise="off", threads=1).run({"x": rows})["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def _shape(*dims: int) -> Any:
    from qdqc.ir.data import Data

    return Data.of(np.array(dims, np.int64))


@pytest.mark.parametrize("budget", [1, 5_000, 1 << 30])
def test_kept_values_are_those_of_the_module_whatever_the_budget(budget: int) -> None:
    module = residual()
    samples = samples_of(module, 3)
    needs = [["b"], ["b", "x"], [], ["s"], ["b", "s"]]
    kept = Kept(module, samples, needs, weights=Weights(), opset=17, budget=budget)
    plain = Runner(module, ["b", "s"], threads=1)
    for layer, names in enumerate(needs):
        for found, sample in zip(kept.of(layer), samples, strict=True):
            values = {**sample, **plain.run(sample)}
            for name in names:
                np.testing.assert_allclose(found[name], values[name], rtol=1e-5, atol=1e-5)


def test_layers_share_a_run_as_far_as_memory_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    module = residual()
    ran: list[list[str]] = []
    held = Kept._run

    def run(self: Kept, names: list[str]) -> Any:
        ran.append(names)
        return held(self, names)

    monkeypatch.setattr(Kept, "_run", run)
    samples = samples_of(module, 2)
    for budget, expected in ((1 << 30, [["b", "s"]]), (1, [["b"], ["s"]])):
        ran.clear()
        kept = Kept(module, samples, [["b"], ["s"]], weights=Weights(), opset=17, budget=budget)
        for layer in (0, 1):
            kept.of(layer)
        assert ran == expected


def test_every_small_network_has_layers_of_both_kinds() -> None:
    for make in NETS.values():
        layers, _ = cuts_of(make())
        assert layers.integer
        assert any(not layer.integer for layer in layers.every)


def test_a_relu_behind_an_add_is_computed_within_the_piece() -> None:
    net = Net(1, 4, 8, 8)
    a = net.conv("a", net.x, 4)
    total = net.op("t", Add(), net.op("r", Relu(), a), a)
    module = net.returns(net.conv("y", total, 2))
    layers, cuts = cuts_of(module)
    layer = next(x for x in layers.every if x.name == "y")
    assert cuts.head(layer).inputs == ("t",), "an Add that a product reads may be kept"
    assert module.graph.inputs[0].type == TensorType(Elem.F32, (1, 4, 8, 8))
