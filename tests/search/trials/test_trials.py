"""Trials give, to the bit, what the whole model gives in which one layer alone is integer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from search_nets import (
    NETS,
    Net,
    attention,
    branches,
    residual,
    samples_of,
    straight_outputs,
    table_of,
)

from qdqc.diagnostics import QdqcError
from qdqc.ir.graph import Module
from qdqc.ir.op import Kind
from qdqc.ir.types import Elem
from qdqc.ops import Add, Softmax, Tanh
from qdqc.quant.arithmetic import rounded
from qdqc.quant.deployment import Deployment
from qdqc.runtime.comparison.compare import cosine
from qdqc.runtime.sessions.session import Runner
from qdqc.search.trials.layers import ranges_of
from qdqc.search.trials.mixed_models import MixedModels
from qdqc.search.trials.objective import Likeness
from qdqc.search.trials.spread import Hands
from qdqc.search.trials.trials import Trials, worst_samples


def trials_of(
    module: Module, samples: list[Any], *, symmetric: bool = False, **more: Any
) -> Trials:
    table = table_of(module, samples)
    names = [v.name for v in module.graph.outputs]
    goal = Likeness({n: 1 / len(names) for n in names})
    return Trials(
        MixedModels(module, Deployment(symmetric=symmetric)), table, samples, goal, **more
    )


def variants_of(trials: Trials, layer: Any, shares: tuple[float, ...]) -> list[tuple[Any, ...]]:
    """Scales from the layer's ranges, wider and narrower."""
    ranges = ranges_of(trials.layers.planned)
    found = []
    for share in shares:
        row = [ranges[v.name] for v in layer.ranged]
        scaled = [type(r)(r.min * share, r.max * share, r.threshold * share) for r in row]
        found.append(tuple(trials.layers.quant(layer, r) for r in scaled))
    return found


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_product_gives_what_the_whole_model_gives(
    net: Module, tmp_path: Path, symmetric: bool
) -> None:
    samples = samples_of(net)
    trials = trials_of(net, samples, symmetric=symmetric)
    ranges = ranges_of(trials.layers.planned)
    products = [n for n in trials.layers.integer if trials.layers.kind(n) is Kind.WEIGHTED]
    assert len(products) >= 3
    for layer in products:
        quants = trials.layers.own_quants(layer, ranges)
        (found,) = trials.variant_outputs(layer, [quants], ranges)
        table = table_of(net, samples)
        expected = straight_outputs(
            net, table, samples, [layer.name], tmp_path, symmetric=symmetric
        )
        for ours, whole in zip(found, expected, strict=True):
            for name in ours:
                np.testing.assert_array_equal(ours[name], whole[name], err_msg=layer.name)


def test_all_kinds_of_layers_are_there() -> None:
    """The networks hold products, sums, pools, and values that are rounded for some readers."""
    found: set[tuple[str, bool]] = set()
    for make in NETS.values():
        module = make()
        found |= {
            (layer.op, layer.integer)
            for layer in trials_of(module, samples_of(module)).layers.every
        }
    assert {("conv", True), ("matmul", True), ("add", True)} <= found
    assert {("input", False), ("softmax", False), ("tanh", False)} <= found


def test_a_sum_rounds_its_operands_and_its_result() -> None:
    """Against numpy: every operand and the result are rounded, everything else is float."""
    module = residual()
    samples = samples_of(module)
    trials = trials_of(module, samples)
    ranges = ranges_of(trials.layers.planned)
    layer = next(x for x in trials.layers.every if x.name == "s")
    quants = trials.layers.own_quants(layer, ranges)
    (found,) = trials.variant_outputs(layer, [quants], ranges)
    taps = Runner(module, ["a", "c"], optimise="off", threads=1)
    tail = _behind(module, "s")
    for sample, ours in zip(samples, found, strict=True):
        values = taps.run(sample)
        parts = [
            rounded(values[n], trials.layers.quant(layer, ranges[n]), Elem.U8) for n in ("a", "c")
        ]
        exact = rounded(parts[0] + parts[1], quants[0], Elem.U8)
        expected = tail.run({"s": exact})["y"]
        np.testing.assert_allclose(ours["y"], expected, rtol=0, atol=0.01 * np.abs(expected).max())
        assert cosine(ours["y"], expected) > 0.9999


def _behind(module: Module, name: str) -> Runner:
    """What comes behind a value, as a model of its own."""
    from qdqc.search.trials.cut import Piece, piece_of

    nodes = frozenset(module.graph.nodes())
    return Runner(piece_of(module, Piece((name,), ("y",), nodes)), optimise="off", threads=1)


def test_values_are_rounded_for_integer_readers_alone() -> None:
    """In the block the residual sum reads ``s`` in float, the product behind it rounded."""
    module = attention()
    samples = samples_of(module)
    trials = trials_of(module, samples)
    layer = next(x for x in trials.layers.every if x.name == "s")
    assert not layer.integer
    assert [n.name for n in layer.readers] == ["u"]
    ranges = ranges_of(trials.layers.planned)
    quants = trials.layers.own_quants(layer, ranges)
    (found,) = trials.variant_outputs(layer, [quants], ranges)
    plain = Runner(module, ["s"], optimise="off", threads=1)
    weights = {n: module.constants[n].data.array() for n in ("u.w", "w.w")}
    for sample, ours in zip(samples, found, strict=True):
        s = plain.run(sample)["s"]
        up = np.tanh(rounded(s, quants[0], Elem.U8) @ weights["u.w"])
        np.testing.assert_allclose(ours["y"], up @ weights["w.w"] + s, rtol=1e-4, atol=1e-4)


def test_variants_behind_one_another_are_those_one_by_one(net: Module) -> None:
    trials = trials_of(net, samples_of(net))
    ranges = ranges_of(trials.layers.planned)
    for layer in trials.layers.every:
        variants = variants_of(trials, layer, (1.0, 0.7, 0.4) if layer.ranged else (1.0,))
        together = trials.variant_outputs(layer, variants, ranges)
        for variant, outputs in zip(variants, together, strict=True):
            (alone,) = trials.variant_outputs(layer, [variant], ranges)
            for a, b in zip(alone, outputs, strict=True):
                for name in a:
                    np.testing.assert_array_equal(a[name], b[name])


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 64])
def test_samples_behind_one_another_are_those_one_by_one(
    net: Module, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    """However many rows go through a tail at once, and whichever samples end up together."""
    samples = samples_of(net, 5)
    trials, table = trials_of(net, samples), table_of(net, samples)
    ranges = ranges_of(trials.layers.planned)
    singles = [Trials(trials.models, table, [s], trials.objective) for s in samples]
    monkeypatch.setattr("qdqc.search.trials.trials._ROWS", rows)
    for number, layer in enumerate(trials.layers.every):
        variants = variants_of(trials, layer, (1.0, 0.5) if layer.ranged else (1.0,))
        together = trials.variant_outputs(layer, variants, ranges)
        for place, single in enumerate(singles):
            own = single.layers.every[number]
            alone = single.variant_outputs(own, variants, ranges)
            for a, b in zip(alone, together, strict=True):
                for name in a[0]:
                    np.testing.assert_array_equal(a[0][name], b[place][name])


def test_samples_of_other_lengths_run_one_by_one() -> None:
    """Texts: what has no common shape can't lie behind one another."""
    from qdqc.ir.dims import symbol

    net = Net(1, symbol("S"), 16, seed=5)
    up = net.op("up", Tanh(), net.matmul("u", net.x, 16, 32))
    module = net.returns(net.op("y", Add(), net.matmul("w", up, 32, 16), net.x))
    rng = np.random.default_rng(1)
    samples = [{"x": rng.normal(0, 1, (1, n, 16)).astype(np.float32)} for n in (6, 2, 6)]
    table = table_of(module, samples)
    trials = Trials(MixedModels(module), table, samples, Likeness({"y": 1.0}))
    ranges = ranges_of(trials.layers.planned)
    layer = next(x for x in trials.layers.every if x.name == "u")
    (found,) = trials.variant_outputs(layer, [trials.layers.own_quants(layer, ranges)], ranges)
    assert [o["y"].shape for o in found] == [(1, 6, 16), (1, 2, 16), (1, 6, 16)]
    alone = Trials(MixedModels(module), table, samples[1:2], Likeness({"y": 1.0}))
    own = next(x for x in alone.layers.every if x.name == "u")
    (one,) = alone.variant_outputs(own, [alone.layers.own_quants(own, ranges)], ranges)
    np.testing.assert_array_equal(one[0]["y"], found[1]["y"])


@pytest.mark.parametrize("screened", [1, 2, 3])
def test_screening_takes_the_best_of_the_first_samples(net: Module, screened: int) -> None:
    trials = trials_of(net, samples_of(net, 5))
    ranges = ranges_of(trials.layers.planned)
    first = trials.on(range(screened))
    for layer in trials.layers.every:
        if not layer.ranged:
            continue
        variants = variants_of(trials, layer, (1.0, 0.6, 0.2))
        found = trials.losses(layer, variants, ranges, screened)
        few = [f.loss for f in first.losses(layer, variants, ranges)]
        whole = [f.loss for f in trials.losses(layer, variants, ranges)]
        best = few.index(min(few))
        for place, one in enumerate(found):
            expected = (whole[place], 5) if place == best else (few[place], screened)
            assert (one.loss, one.samples) == expected


def test_rows_that_mix_are_not_stacked() -> None:
    """A softmax over the first axis would mix variants: they run one by one, and are right."""
    net = Net(1, 4, 8, 8)
    a = net.conv("a", net.x, 4)
    soft = net.op("soft", Softmax(axis=0), a)
    module = net.returns(soft)
    trials = trials_of(module, samples_of(module))
    layer = next(x for x in trials.layers.every if x.name == "a")
    variants = variants_of(trials, layer, (1.0, 0.3))
    ranges = ranges_of(trials.layers.planned)
    found = trials.variant_outputs(layer, variants, ranges)
    assert all((o["soft"] == 1).all() for outputs in found for o in outputs)


@pytest.mark.parametrize(
    "more", [{"budget": 1}, {"hands": Hands(threads=3)}, {"hands": Hands(workers=2)}]
)
def test_memory_and_threads_change_no_bit(net: Module, more: dict[str, Any]) -> None:
    samples = samples_of(net, 6)
    a, b = trials_of(net, samples), trials_of(net, samples, **more)
    ranges = ranges_of(a.layers.planned)
    for one, other in zip(a.layers.every, b.layers.every, strict=True):
        variants = variants_of(a, one, (1.0, 0.5) if one.ranged else (1.0,))
        assert a.losses(one, variants, ranges) == b.losses(other, variants, ranges)


def test_a_symbolic_batch_holds_several_rows() -> None:
    from qdqc.ir.dims import symbol

    module = residual(symbol("N"))
    rng = np.random.default_rng(0)
    samples = [{"x": rng.normal(0, 1, (3, 4, 8, 8)).astype(np.float32)} for _ in range(2)]
    trials = trials_of(module, samples)
    ranges = ranges_of(trials.layers.planned)
    layer = next(x for x in trials.layers.every if x.name == "b")
    found = trials.variant_outputs(layer, variants_of(trials, layer, (1.0, 0.5)), ranges)
    assert found[0][0]["y"].shape == (3, 5)
    names = {"y": 1.0}
    single = [{"x": samples[0]["x"][1:2]}]
    alone = Trials(trials.models, table_of(module, samples), single, Likeness(names))
    own = next(x for x in alone.layers.every if x.name == "b")
    (one, _) = alone.variant_outputs(own, variants_of(alone, own, (1.0, 0.5)), ranges)
    np.testing.assert_allclose(one[0]["y"], found[0][0]["y"][1:2], rtol=1e-5, atol=1e-6)


def test_the_deployed_model_is_that_of_the_commands(tmp_path: Path) -> None:
    module = residual()
    samples = samples_of(module)
    trials = trials_of(module, samples)
    table = table_of(module, samples)
    every = [n.name for n in module.graph.nodes()]
    for floats in ((), ("b",), ("a", "s")):
        expected = straight_outputs(
            module, table, samples, [n for n in every if n not in floats], tmp_path
        )
        found = trials.outputs_of(table, frozenset(floats))
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a["y"], b["y"])


def test_worst_samples_are_those_that_differ_most() -> None:
    module = residual()
    samples = samples_of(module, 8)
    samples[5] = {"x": samples[5]["x"] * 30}  # far outside of the calibrated ranges
    table = table_of(module, samples_of(module, 4))
    deployment = MixedModels(module)
    assert worst_samples(deployment, table, samples, ["y"], 1) == [5]
    found = worst_samples(deployment, table, samples, ["y"], 3)
    assert 5 in found
    assert found == sorted(found)


def test_no_samples_is_an_error() -> None:
    module = branches()
    table = table_of(module, samples_of(module))
    with pytest.raises(QdqcError, match="no samples"):
        Trials(MixedModels(module), table, [], Likeness({"y": 1.0}))
