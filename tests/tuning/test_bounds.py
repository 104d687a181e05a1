"""What tuning allocates has a bound, whatever the sizes; and keeping to it changes no number."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdqc.ir.graph import Module
from qdqc.ops import Conv, MatMul
from qdqc.passes import correct_bias
from qdqc.passes.refine_weight_scales import RefineWeightScales
from qdqc.passes.round_weights import RoundWeights
from qdqc.pipeline.pass_ import PassContext
from qdqc.quant import arithmetic
from qdqc.runtime.sessions.session import Runner
from qdqc.text.printer import print_module
from qdqc.tuning import columns, moments, product_inputs, rounding, smoothing
from qdqc.tuning.columns import Columns, Product, product_of
from qdqc.tuning.moments import Moments
from qdqc.tuning.product_inputs import Wanted, stream
from qdqc.tuning.smoothing import inputs_of

RNG = np.random.default_rng(0)


def peak_of(action: Callable[[], object]) -> int:
    """Bytes that Python and numpy allocate at most beside what is there."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def product(node: Any) -> Product:
    made = product_of(node)
    assert isinstance(made, Product)
    return made


@pytest.mark.parametrize("taps", [3, 256, 4096])
def test_sums_take_about_what_they_sum(taps: int) -> None:
    """The columns themselves would be ``taps`` times as large as x."""
    x = RNG.normal(size=(1, 1, 1, 44_098)).astype(np.float32)
    read = Columns(1, (1, taps), (1, 2), (1, 1), ((0, 0), (0, 0)))
    assert peak_of(lambda: read.sums(x)) < 5 * x.nbytes  # two copies in float64
    sums, count = read.sums(x)
    assert count == (44_098 - taps) // 2 + 1
    totals = [x[..., tap : tap + 2 * count : 2].sum(dtype=np.float64) for tap in range(taps)]
    np.testing.assert_allclose(sums[0], totals)


@settings(max_examples=60)
@given(st.data())
def test_sums_are_those_of_all_columns(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 2))
    kernel, strides, dilations = (
        tuple(data.draw(st.lists(st.integers(1, 4), min_size=rank, max_size=rank)))
        for _ in range(3)
    )
    pad = st.tuples(st.integers(0, 3), st.integers(0, 3))
    pads = tuple(data.draw(st.lists(pad, min_size=rank, max_size=rank)))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    sizes = [data.draw(st.integers(max(1, r - sum(p)), 14)) if r - sum(p) <= 14 else r
             for r, p in zip(reach, pads, strict=True)]  # fmt: skip
    groups = data.draw(st.sampled_from([1, 2]))
    x = np.random.default_rng(1).normal(size=(2, 4, *sizes)).astype(np.float32)
    read = Columns(groups, kernel, strides, dilations, pads)
    every = read.picked(x, 1 << 20)
    sums, count = read.sums(x)
    assert count == every.shape[1]
    np.testing.assert_allclose(sums, every.sum(axis=1, dtype=np.float64), atol=1e-4)


def test_picks_of_very_many_places_list_none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    x = RNG.normal(size=(1, 1, 1 << 20)).astype(np.float32)
    read = Columns(1, (1,), (1,), (1,), ((0, 0),))
    monkeypatch.setattr(columns, "_SHUFFLED", 1000)
    picked = read.picked(x, 500)
    assert 490 < picked.shape[1] <= 500
    assert np.isin(picked, x).all()
    assert peak_of(lambda: read.picked(x, 500)) < 2 * x.nbytes


def test_a_sample_gives_no_more_columns_than_fit(
    net: Any, draw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, node = net(Conv(), (1, 8, 40, 40), np.ones((2, 8, 5, 5), np.float32))
    read = ("x", product(node).columns)
    monkeypatch.setattr(product_inputs, "_DRAWN", 100 * 200 * 4)
    samples = [{"x": draw((1, 8, 40, 40), 1)}]
    ((seen,),) = (list(s.values()) for s in stream(module, [read], samples, None, Wanted(10**6, 1)))
    assert seen.columns.shape == (1, 100, 200)


def test_deep_second_moments_are_those_of_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = RNG.normal(size=(2, 500, 50)).astype(np.float32)
    whole = Moments(2, 50)
    whole.update(drawn.sum(axis=1, dtype=np.float64), 500, drawn)
    monkeypatch.setattr(moments, "MOST", 2 * 50 * 20)
    monkeypatch.setattr(moments, "_LEAST_PART", 8)
    parts = Moments(2, 50)
    parts.update(drawn.sum(axis=1, dtype=np.float64), 500, drawn)
    assert parts.parts == 3
    np.testing.assert_array_equal(parts.mean, whole.mean)
    for centred in (True, False):
        full, split = (m.second(centred=centred) for m in (whole, parts))
        assert split.shape == (6, 17, 17)
        for group in range(2):
            for part in range(3):
                span = slice(17 * part, min(50, 17 * (part + 1)))
                size = span.stop - span.start
                found = split[3 * group + part]
                np.testing.assert_allclose(found[:size, :size], full[group, span, span], atol=1e-6)
                assert not found[size:].any()
    rows = RNG.normal(size=(2, 7, 50))
    np.testing.assert_array_equal(parts.joined(parts.split(rows)), rows)


@pytest.mark.parametrize("depth", [100, 10_000, 1_000_000])
def test_second_moments_never_exceed_their_bound(depth: int) -> None:
    parts = Moments(1, depth).parts
    each = -(-depth // parts)
    assert parts * each * each <= max(moments.MOST * 1.2, 64 * 1.1 * depth)


def tuned(rule: Any, make: Callable[[], Module], samples: list[dict[str, Any]]) -> str:
    module = make()
    rule.run(module.graph, PassContext(samples=samples))
    return print_module(module)


@pytest.mark.parametrize(
    "rule", [RoundWeights(), RoundWeights(bits=4, group_size=16), RefineWeightScales()]
)
def test_slabs_of_rows_change_no_bit(
    rule: Any, net: Any, draw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = RNG.normal(size=(32, 24)).astype(np.float32)
    samples = [{"x": draw((40, 32), seed)} for seed in range(12)]
    whole = tuned(rule, lambda: net(MatMul(), (40, 32), weight)[0], samples)
    for room in (rounding, correct_bias):
        monkeypatch.setattr(room, "_AT_ONCE", 5 * 32)
    monkeypatch.setattr(arithmetic, "_AT_ONCE", 100)
    monkeypatch.setattr(arithmetic, "_FITTED_AT_ONCE", 100)
    assert tuned(rule, lambda: net(MatMul(), (40, 32), weight)[0], samples) == whole


def test_deep_weights_still_err_less_than_rounded_to_nearest(
    net: Any, draw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = (RNG.normal(size=(96, 24)) * np.exp(RNG.normal(size=(96, 24)))).astype(np.float32)
    samples = [{"x": draw((60, 96), seed)} for seed in range(20)]
    monkeypatch.setattr(moments, "MOST", 96 * 32)
    monkeypatch.setattr(moments, "_LEAST_PART", 8)
    errors: list[float] = []
    exact = Runner(net(MatMul(), (60, 96), weight)[0]).run(samples[0])["y"]
    for method in ("nearest", "gptq"):
        module, _ = net(MatMul(), (60, 96), weight)
        RoundWeights(method=method).run(module.graph, PassContext(samples=samples))
        errors.append(float(np.square(Runner(module).run(samples[0])["y"] - exact).sum()))
    assert errors[1] < 0.8 * errors[0]


def test_rounding_takes_little_beside_a_large_weight(
    net: Any, draw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = RNG.normal(size=(16, 200_000)).astype(np.float32)
    module, _ = net(MatMul(), (4, 16), weight)
    monkeypatch.setattr(rounding, "_AT_ONCE", 1 << 17)
    monkeypatch.setattr(arithmetic, "_AT_ONCE", 1 << 17)
    context = PassContext(samples=[{"x": draw((4, 16), seed)} for seed in range(4)])
    peak = peak_of(lambda: RoundWeights(sweeps=1).run(module.graph, context))
    assert peak < 3 * weight.nbytes


def test_smoothing_keeps_no_more_rows_however_many_samples_come(
    net: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, node = net(MatMul(), (10, 4), np.ones((4, 2), np.float32))
    monkeypatch.setattr(smoothing, "WANTED", Wanted(dense=50, grouped=0))
    drawn = RNG.normal(size=(300, 10, 4)).astype(np.float32)
    samples: Any = ({"x": x} for x in drawn)  # nobody knows how many come
    ((_, inputs),) = inputs_of(module, [product(node)], samples)
    assert 20 <= len(inputs.rows) <= 100
    assert inputs.high.max() == drawn.max()


def test_smoothing_in_parts_sees_the_same(
    net: Any, draw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, first = net(MatMul(), (20, 6), RNG.normal(size=(6, 6)).astype(np.float32))
    weight: npt.NDArray[Any] = RNG.normal(size=(6, 3)).astype(np.float32)
    made = module.add_constant("v", first.need("b").data.__class__.of(weight))
    second = module.graph.insert(MatMul(), [first.result, made], None, ["z"])
    module.graph.set_outputs([second.result])
    products = [product(first), product(second)]
    samples = [{"x": draw((20, 6), seed)} for seed in range(3)]
    whole = list(inputs_of(module, products, samples))
    monkeypatch.setattr(smoothing, "BUDGET", 1)
    for (_, a), (_, b) in zip(whole, inputs_of(module, products, samples), strict=True):
        np.testing.assert_array_equal(a.rows, b.rows)
        np.testing.assert_array_equal(a.high, b.high)
