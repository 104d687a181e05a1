"""Moments from a stream of samples, against all columns side by side in numpy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from qdqc.calibration.masking import masking_by
from qdqc.diagnostics import QdqcError
from qdqc.ir.graph import Module
from qdqc.ir.types import Elem, TensorType
from qdqc.ops import Conv, Gemm, MatMul
from qdqc.runtime.sessions import session
from qdqc.runtime.sessions.session import Runner
from qdqc.tuning import moments as room
from qdqc.tuning.columns import Product, product_of
from qdqc.tuning.moments import Moments, moments_of
from qdqc.tuning.product_inputs import Wanted
from qdqc.tuning.rounding import damped


def product(node: Any) -> Product:
    found = product_of(node)
    assert isinstance(found, Product)
    return found


def covariance(columns: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """[n,K] to [K,K], by numpy."""
    return np.cov(columns.T, bias=True).reshape(columns.shape[1], -1)


def test_moments_are_those_of_all_columns(net: Any, draw: Any) -> None:
    module, node = net(MatMul(), (50, 6), np.ones((6, 2), np.float32))
    samples = [{"x": draw((50, 6), seed)} for seed in range(7)]
    ((sharing, found),) = moments_of(module, [product(node)], samples)
    columns = np.concatenate([s["x"] for s in samples]).astype(np.float64)
    assert [p.node for p in sharing] == [node]
    assert (found.count, found.drawn) == (350, 0)  # none added up yet: less than a product's worth
    np.testing.assert_allclose(found.mean[0], columns.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found.second(centred=True)[0], covariance(columns), rtol=1e-3)
    expected = columns.T @ columns / 350
    np.testing.assert_allclose(found.second(centred=False)[0], expected, rtol=1e-4)
    assert found.drawn == 350


def test_groups_have_moments_of_their_own(net: Any, draw: Any) -> None:
    op = Conv(group=4, pads=(1, 1, 1, 1))
    module, node = net(op, (1, 4, 6, 6), np.ones((4, 1, 3, 3), np.float32))
    samples = [{"x": draw((1, 4, 6, 6), seed)} for seed in range(12)]
    ((_, found),) = moments_of(module, [product(node)], samples)
    padded = np.concatenate([np.pad(s["x"], ((0, 0), (0, 0), (1, 1), (1, 1))) for s in samples])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    columns = windows.transpose(1, 0, 2, 3, 4, 5).reshape(4, -1, 9).astype(np.float64)
    np.testing.assert_allclose(found.mean, columns.mean(axis=1), rtol=1e-4, atol=1e-5)
    for channel in range(4):
        second = found.second(centred=True)[channel]
        np.testing.assert_allclose(second, covariance(columns[channel]), rtol=1e-3, atol=1e-4)


def test_a_part_of_many_columns_stands_for_all(net: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(room, "WANTED", Wanted(2000, 0))
    module, node = net(MatMul(), (5000, 3), np.ones((3, 2), np.float32))
    rng = np.random.default_rng(0)
    samples = [{"x": rng.normal(2, [1, 2, 3], (5000, 3)).astype(np.float32)} for _ in range(4)]
    ((_, found),) = moments_of(module, [product(node)], samples)
    second = found.second(centred=True)[0]
    assert (found.count, found.drawn) == (20_000, 2000)
    np.testing.assert_allclose(np.diagonal(second), [1, 4, 9], rtol=0.1)


def shared(draw: Any) -> tuple[Module, list[Product], list[dict[str, Any]]]:
    """Two products that read x, and one that reads what the first gives."""
    module = Module("m", {"": 17})
    x = module.graph.add_input("x", TensorType(Elem.F32, (8, 4)))
    from qdqc.ir.data import Data

    wide = module.add_constant("w", Data.of(np.ones((4, 5), np.float32)))
    deep = module.add_constant("v", Data.of(np.ones((5, 2), np.float32)))
    a = module.graph.insert(Gemm(), [x, wide], None, ["a"])
    b = module.graph.insert(Gemm(), [x, wide], None, ["b"])
    c = module.graph.insert(Gemm(), [a.result, deep], None, ["c"])
    module.graph.set_outputs([b.result, c.result])
    return module, [product(n) for n in (a, b, c)], [{"x": draw((8, 4), s)} for s in range(3)]


@pytest.mark.parametrize(("budget", "runs"), [(room.BUDGET, 1), (4 * 4 * 4, 2), (1, 2)])
def test_products_share_moments_and_a_budget_takes_more_runs(
    draw: Any, monkeypatch: pytest.MonkeyPatch, budget: int, runs: int
) -> None:
    module, products, samples = shared(draw)
    opened: list[list[str]] = []

    def counted(module: Module, taps: Any, **options: Any) -> Runner:
        opened.append(list(taps))
        return Runner(module, taps, **options)

    monkeypatch.setattr(session, "Runner", counted)
    found = list(moments_of(module, products, samples, budget=budget))
    assert [[p.node.name for p in sharing] for sharing, _ in found] == [["a", "b"], ["c"]]
    assert len(opened) == runs
    held = {sharing[0].node.name: m.second(centred=False) for sharing, m in found}
    x = np.concatenate([s["x"] for s in samples]).astype(np.float64)
    np.testing.assert_allclose(held["a"][0], x.T @ x / 24, rtol=1e-4)


def test_means_alone_take_one_run(draw: Any) -> None:
    module, products, samples = shared(draw)
    found = list(moments_of(module, products, samples, second=False, budget=1))
    x = np.concatenate([s["x"] for s in samples])
    np.testing.assert_allclose(found[0][1].mean[0], x.mean(axis=0), rtol=1e-5)


def test_padding_of_texts_does_not_count(net: Any) -> None:
    module, node = net(MatMul(), (1, 4, 3), np.ones((3, 2), np.float32))
    module.graph.add_input("mask", TensorType(Elem.I64, (1, 4)))
    x = np.full((1, 4, 3), 100, np.float32)
    x[0, :2] = [[1, 2, 3], [3, 2, 1]]
    samples = [{"x": x, "mask": np.array([[1, 1, 0, 0]])}]
    masking = masking_by(module.graph, "mask")
    ((_, found),) = moments_of(module, [product(node)], samples, masking)
    assert found.count == 2
    np.testing.assert_array_equal(found.mean, [[2, 2, 2]])


def test_samples_are_read_one_after_another_and_not_kept(net: Any, draw: Any) -> None:
    module, node = net(MatMul(), (4, 3), np.ones((3, 2), np.float32))
    alive: list[int] = []

    def given() -> Iterator[dict[str, Any]]:
        for index in range(20):
            alive.append(index)
            yield {"x": draw((4, 3), index)}

    ((_, found),) = moments_of(module, [product(node)], given())
    assert (found.count, alive) == (80, list(range(20)))


def test_no_samples(net: Any) -> None:
    module, node = net(MatMul(), (4, 3), np.ones((3, 2), np.float32))
    with pytest.raises(QdqcError, match="there are no samples to measure"):
        list(moments_of(module, [product(node)], []))


@pytest.mark.parametrize("mean", [0.0, 30.0, 3000.0])
def test_second_moments_do_not_lose_their_digits_beside_a_large_mean(mean: float) -> None:
    rng = np.random.default_rng(0)
    columns = (rng.normal(size=(1, 2000, 2)) * [1, 3] + mean).astype(np.float32)
    found = Moments(1, 2)
    for part in np.split(columns, 20, axis=1):
        found.update(part.sum(axis=1, dtype=np.float64), part.shape[1], part)
    exact = columns[0].astype(np.float64)
    np.testing.assert_allclose(
        found.second(centred=True)[0], covariance(exact), rtol=1e-4, atol=1e-3
    )
    np.testing.assert_allclose(
        found.second(centred=False)[0], exact.T @ exact / 2000, rtol=1e-5, atol=1e-3
    )


@pytest.mark.parametrize("mean", [0.0, 1.0, 1000.0])
def test_columns_that_never_vary_have_a_covariance_that_can_be_factored(mean: float) -> None:
    """A dead channel beside others, in one group: damped, no eigenvalue falls below zero."""
    rng = np.random.default_rng(1)
    columns = rng.normal(size=(3, 900, 5)).astype(np.float32) * 1e-3 + np.float32(mean)
    columns[1] = mean
    columns[:, :, 2] = mean
    found = Moments(3, 5)
    for part in np.split(columns, 3, axis=1):
        found.update(part.sum(axis=1, dtype=np.float64), part.shape[1], part)
    least = np.linalg.eigvalsh(damped(found.second(centred=True), 0.01)).min()
    assert least > 0


def test_squares_that_overflow_are_not_finite() -> None:
    columns = np.array([[[1e30, 1.0], [-1e30, 2.0]]], np.float32)
    found = Moments(1, 2)
    found.update(columns.sum(axis=1, dtype=np.float64), 2, columns)
    assert not found.is_finite
